//! What `deploy/` has, checked by the programs that it is for.

mod release;
