//! Noticing that the configuration file has changed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::events;
use crate::config::MAX_FILE_BYTES;
use crate::follow::Follower;
use crate::input_file::{self, FileStamp};

/// The configuration file, and what it contained when the configuration was read last.
///
/// A change counts once two checks in a row have found the same content, so that nobody reads half of a file that an
/// editor is writing. An empty file does not count: it would end all watches, and is about to be written.
pub struct FollowedConfigFile {
    read: LastRead,
    /// The content of the last change, which counts once even if it could not be read.
    counted: Digest,
    /// The content at the last check.
    last: Digest,
    /// The stamp at the last check, if any later change will show in it.
    stamp: Option<FileStamp>,
}

/// What the file contained when the configuration was read last, for whatever reason.
#[derive(Clone)]
pub struct LastRead {
    path: PathBuf,
    content: Arc<Mutex<Digest>>,
}

/// Stands for the content of a file; `None` if it cannot be read.
type Digest = Option<u64>;

/// Stands for a file with nothing in it.
const EMPTY: u64 = 0;

/// Follows the configuration file.
pub(super) struct ConfigFileFollower {
    /// `None` if the file is not followed.
    follower: Option<Follower<FollowedConfigFile>>,
}

// === impl FollowedConfigFile ===

impl FollowedConfigFile {
    /// Takes what the file contains now as the content in force. Called before the configuration is read, so that no
    /// later change is missed. Blocks.
    pub fn open(path: PathBuf) -> Self {
        let content = digest(&path);
        let read = LastRead { path, content: Arc::new(Mutex::new(content)) };
        Self { read, counted: content, last: content, stamp: None }
    }

    /// What the file contained when the configuration was read last.
    pub fn last_read(&self) -> LastRead {
        self.read.clone()
    }

    /// Whether the file has changed since the configuration was read, and no longer changes. Blocks.
    fn check(&mut self) -> bool {
        let now = self.content();
        let before = std::mem::replace(&mut self.last, now);
        let is_read = now == *self.read.content();
        let changed = now == before && now != self.counted && !is_read && now != Some(EMPTY);
        if changed || is_read {
            self.counted = now;
        }
        changed
    }

    /// Reads the file, unless its stamp says that it is as it was at the last check.
    fn content(&mut self) -> Digest {
        let stamp = fs::metadata(&self.read.path).ok().map(|metadata| FileStamp::of(&metadata));
        if stamp.is_some() && self.stamp == stamp {
            return self.last;
        }
        let content = digest(&self.read.path);
        // A file that could not be read is read again, even if its stamp stays the same.
        self.stamp = stamp.filter(|stamp| content.is_some() && stamp.is_settled(SystemTime::now()));
        content
    }
}

fn digest(path: &Path) -> Digest {
    let content = input_file::read(path, MAX_FILE_BYTES).ok()?;
    if content.trim_ascii().is_empty() {
        return Some(EMPTY);
    }
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(hasher.finish())
}

// === impl LastRead ===

impl LastRead {
    /// Notes what the file contains. Called before the configuration is read, so that no later change is missed. Blocks.
    pub fn note(&self) {
        let content = digest(&self.path);
        *self.content() = content;
    }

    fn content(&self) -> MutexGuard<'_, Digest> {
        // Nothing panics while it holds the lock.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ConfigFileFollower ===

impl ConfigFileFollower {
    pub(super) fn new(file: Option<FollowedConfigFile>) -> Self {
        Self { follower: file.map(|file| Follower::new("config-file", file)) }
    }

    /// Waits until the file has changed, or for at most this number of checks. Returns whether it has. Not cancel safe.
    pub(super) async fn changed_within(&mut self, checks: u32) -> bool {
        for _ in 0..checks {
            let Some(follower) = &mut self.follower else { break };
            follower.tick().await;
            match follower.check(FollowedConfigFile::check).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => {
                    events::config_file_no_longer_followed();
                    self.follower = None;
                }
            }
        }
        if self.follower.is_none() {
            std::future::pending::<()>().await;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("config.yaml");
        fs::write(&path, "a").unwrap();
        path
    }

    /// What checks say, when the file is read after each that says that it has changed.
    fn checks(file: &mut FollowedConfigFile) -> [bool; 3] {
        [(); 3].map(|()| {
            let changed = file.check();
            if changed {
                file.last_read().note();
            }
            changed
        })
    }

    #[test]
    fn a_change_counts_once_when_two_checks_have_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        assert_eq!(checks(&mut followed), [false; 3]);
        // Of the same size, and perhaps at the same time by a coarse clock.
        fs::write(&path, "b").unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    #[test]
    fn a_file_that_is_being_written_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        for text in ["bc", "bcd", "bcde"] {
            fs::write(&path, text).unwrap();
            assert!(!followed.check(), "{text}");
        }
        assert!(followed.check());
        fs::write(&path, "half").unwrap();
        assert!(!followed.check());
        fs::write(&path, "bcde").unwrap();
        assert_eq!(checks(&mut followed), [false; 3], "it is what it was");
    }

    #[test]
    fn a_change_that_was_read_on_request_does_not_count_and_the_way_back_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        fs::write(&path, "b").unwrap();
        followed.last_read().note();
        assert_eq!(checks(&mut followed), [false; 3]);
        fs::write(&path, "a").unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    #[test]
    fn a_file_that_comes_back_as_it_was_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let [there, away] = ["there", "away"].map(|name| folder.path().join(name));
        fs::create_dir(&there).unwrap();
        let path = there.join("config.yaml");
        fs::write(&path, "a").unwrap();
        let mut followed = FollowedConfigFile::open(path.clone());
        // As if it had been written long ago.
        followed.stamp = Some(FileStamp::of(&fs::metadata(&path).unwrap()));
        fs::rename(&there, &away).unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
        fs::rename(&away, &there).unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    #[test]
    fn a_change_that_could_not_be_read_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        fs::write(&path, "b").unwrap();
        assert_eq!([(); 4].map(|()| followed.check()), [false, true, false, false]);
    }

    #[test]
    fn an_empty_file_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        fs::write(&path, " \n").unwrap();
        assert_eq!(checks(&mut followed), [false; 3]);
        fs::write(&path, "b").unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    #[test]
    fn a_file_that_stays_away_has_changed_and_so_has_one_that_came_back_with_other_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut followed = FollowedConfigFile::open(path.clone());
        fs::remove_file(&path).unwrap();
        assert!(!followed.check());
        fs::write(&path, "a").unwrap();
        assert_eq!(checks(&mut followed), [false; 3], "it was only replaced");
        fs::remove_file(&path).unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
        fs::write(&path, "a").unwrap();
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    /// Changes the content of a folder as Kubernetes does for a `ConfigMap`: by another folder behind a link.
    fn mount(folder: &Path, version: &str) {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("config.yaml"), version).unwrap();
        std::os::unix::fs::symlink(version, folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join("..data")).unwrap();
    }

    #[test]
    fn a_config_map_that_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "v1");
        let path = folder.path().join("config.yaml");
        std::os::unix::fs::symlink("..data/config.yaml", &path).unwrap();
        let mut followed = FollowedConfigFile::open(path);
        mount(folder.path(), "v2");
        assert_eq!(checks(&mut followed), [false, true, false]);
    }

    #[tokio::test]
    async fn a_file_that_is_not_followed_never_changes() {
        let mut follower = ConfigFileFollower::new(None);
        tokio::select! {
            biased;
            _ = follower.changed_within(1) => panic!("it is not followed"),
            () = tokio::task::yield_now() => {}
        }
    }
}
