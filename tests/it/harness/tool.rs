//! Programs of the machine that the tests need.

use std::path::PathBuf;

/// Where a program is. A test that needs one fails without it, so that none is left out unseen.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("there is no `{name}` on this machine: tests/run installs it"))
}
