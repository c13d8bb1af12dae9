//! Writes the man page and the completions of the shells into this folder: `cargo run --example manual`. A test checks
//! that they are what the flags make of them. They are committed, so that packages are made without running this.

use std::path::Path;
use std::{fs, io};

mod pages;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manual");
    for (name, text) in pages::files()? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
