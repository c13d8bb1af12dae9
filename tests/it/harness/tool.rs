//! Programs of the machine that the tests need.

use std::path::{Path, PathBuf};

/// Where a program is, first of all among those that `tests/run` keeps in the checkout. A test that
/// needs one fails without it, so that none is left out unseen.
pub(crate) fn tool(name: &str) -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let kept = ["python/bin", "debian/usr/bin", "helm/bin"].map(|folder| kept.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = kept.into_iter().chain(std::env::split_paths(&path));
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()));
    found.unwrap_or_else(|| panic!("there is no `{name}` on this machine: tests/run installs it"))
}

/// The newest of what Debian has of a program, which is not the one of the machine.
pub(crate) fn newest_tool(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/forky/usr/bin").join(name);
    assert!(file.is_file(), "there is no `{}`: tests/run unpacks it", file.display());
    file
}
