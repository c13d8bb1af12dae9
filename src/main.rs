//! The program, all of which is in the library: what both compiled would be in the file twice.

use std::process::ExitCode;

fn main() -> ExitCode {
    cekura_exporter::process::main()
}
