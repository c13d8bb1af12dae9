//! The web configuration file, and whether it or a file that it names has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Web;
use super::config;
use super::snapshot::FileSnapshot;
use crate::clock;
use crate::document::{Problem, Problems};

/// The most times that the files are read if they change while they are read.
const MAX_READS: usize = 3;

/// The web configuration file, and what it said when it was last read.
#[derive(Debug)]
pub struct WebFile {
    path: PathBuf,
    /// The last valid configuration.
    web: Arc<Web>,
    /// The problems of the current one.
    problems: Vec<Problem>,
    files: FileSnapshot,
}

/// What has changed since the check before.
#[derive(Debug)]
pub(super) enum WebChange {
    /// Nothing.
    None,
    /// There is another valid configuration, with its warnings.
    Changed(Vec<Problem>),
    /// The configuration is invalid, with the problems that are new. The last valid one stays in force.
    Failed(Vec<Problem>),
}

/// The files as they were read, and the configuration in them with its warnings.
struct Loaded {
    files: FileSnapshot,
    /// Whether the file has only blank lines and comments, not even `{}`.
    is_blank: bool,
    result: Result<(Web, Vec<Problem>), Problems>,
}

// === impl WebFile ===

impl WebFile {
    /// Reads the file and the files that it names, and returns it with its warnings. Blocks.
    ///
    /// # Errors
    /// Every problem.
    pub fn open(path: &Path) -> Result<(Self, Vec<Problem>), Problems> {
        let Loaded { files, result, .. } = Loaded::read(path);
        let (web, warnings) = result?;
        Ok((Self { path: path.to_owned(), web: Arc::new(web), problems: Vec::new(), files }, warnings))
    }

    /// The last valid configuration.
    pub fn web(&self) -> &Arc<Web> {
        &self.web
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the configuration was valid at the last check.
    ///
    /// # Errors
    /// Every problem.
    pub(super) fn result(&self) -> Result<(), Problems> {
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems.clone())) }
    }

    /// Reads all files again if one of them has changed. Blocks.
    pub(super) fn check(&mut self) -> WebChange {
        if self.files.is_current() {
            return WebChange::None;
        }
        let Loaded { files, is_blank, mut result } = Loaded::read(&self.path);
        self.files = files;
        if is_blank && self.web.protects() {
            // A shell truncates a file before it writes to it, and the disk may be full.
            let what = "is empty, which would turn TLS and logins off: write {} if that is meant".to_owned();
            let origin = self.path.display().to_string();
            result = Err(Problems(vec![Problem::new(origin, "", what)]));
        }
        match result {
            Ok((web, warnings)) => {
                self.web = Arc::new(web);
                self.problems.clear();
                WebChange::Changed(warnings)
            }
            Err(Problems(problems)) => {
                let before = std::mem::replace(&mut self.problems, problems.clone());
                WebChange::Failed(
                    problems.into_iter().filter(|problem| !before.iter().any(|old| old.is_same(problem))).collect(),
                )
            }
        }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Reads all files in one consistent state, so that a certificate is not combined with the key of the
    /// next one.
    fn read(path: &Path) -> Self {
        let mut loaded = Self::read_once(path);
        for _ in 1..MAX_READS {
            if loaded.files.is_current() {
                break;
            }
            loaded = Self::read_once(path);
        }
        loaded
    }

    fn read_once(path: &Path) -> Self {
        let mut files = FileSnapshot::default();
        let text = files.read(path);
        let is_blank = text.as_ref().is_ok_and(|text| is_blank(text));
        let result = match text {
            Ok(text) => config::parse_web(path, &text, &mut |named| files.read(named), clock::now()),
            Err(what) => Err(Problems(vec![Problem::new(path.display().to_string(), "", what)])),
        };
        Self { files, is_blank, result }
    }
}

/// Whether a text has only blank lines and comments.
fn is_blank(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n').all(|line| matches!(line.trim_ascii().first(), None | Some(b'#')))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::web::sample::{Authority, Folder, Name, Pair};

    fn pair() -> Pair {
        Authority::new("servers").issue(&[Name::Dns("localhost")])
    }

    fn open(folder: &Folder) -> WebFile {
        WebFile::open(&folder.config()).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    /// The new problems of this check, at least one.
    fn failed(file: &mut WebFile) -> String {
        match file.check() {
            WebChange::Failed(problems) if !problems.is_empty() => Problems(problems).to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn changed(file: &mut WebFile) {
        let before = file.web().clone();
        let change = file.check();
        assert!(matches!(change, WebChange::Changed(_)), "{change:?}");
        assert!(!Arc::ptr_eq(&before, file.web()));
        assert_eq!(file.result(), Ok(()));
    }

    fn unchanged(file: &mut WebFile) {
        let change = file.check();
        assert!(matches!(change, WebChange::None), "{change:?}");
    }

    /// The certificate in use.
    fn shown(file: &WebFile) -> String {
        format!("{:?}", file.web().tls.as_ref().unwrap().server.cert_resolver)
    }

    #[test]
    fn a_file_with_the_same_content_is_no_change() {
        let server = pair();
        let folder = Folder::of_server(&server, "");
        let mut file = open(&folder);
        unchanged(&mut file);
        fs::remove_file(folder.path("server.key")).unwrap();
        folder.write("server.key", &server.key);
        unchanged(&mut file);
    }

    #[test]
    fn another_certificate_or_configuration_is_put_in_force() {
        let folder = Folder::of_server(&pair(), "");
        let mut file = open(&folder);
        let before = shown(&file);
        let renewed = pair();
        folder.write("server.pem", &renewed.certificate);
        folder.write("server.key", &renewed.key);
        changed(&mut file);
        assert_ne!(shown(&file), before);
        folder.write("web.yaml", "http_server_config: {headers: {X-Frame-Options: deny}}");
        changed(&mut file);
        assert!(file.web().tls.is_none() && file.web().headers.len() == 1);
        // A file that is no longer named is not read.
        folder.write("server.pem", "");
        unchanged(&mut file);
        folder.write("web.yaml", "");
        changed(&mut file);
        assert!(file.web().headers.is_empty());
    }

    #[test]
    fn links_that_are_swapped_as_in_kubernetes_are_followed() {
        let folder = Folder::new();
        let release = |name: &str, pair: &Pair| {
            fs::create_dir(folder.path(name)).unwrap();
            folder.write(&format!("{name}/server.pem"), &pair.certificate);
            folder.write(&format!("{name}/server.key"), &pair.key);
            folder
                .write(&format!("{name}/web.yaml"), "tls_server_config: {cert_file: server.pem, key_file: server.key}");
            symlink(name, folder.path("..new")).unwrap();
            fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
        };
        release("..1", &pair());
        for name in ["server.pem", "server.key", "web.yaml"] {
            symlink(format!("..data/{name}"), folder.path(name)).unwrap();
        }
        let mut file = open(&folder);
        let before = shown(&file);
        release("..2", &pair());
        fs::remove_dir_all(folder.path("..1")).unwrap();
        changed(&mut file);
        assert_ne!(shown(&file), before);
        unchanged(&mut file);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_once_and_the_last_valid_configuration_stays() {
        let server = pair();
        let folder = Folder::of_server(&server, "");
        let mut file = open(&folder);
        let good = file.web().clone();
        let key = folder.path("server.key");
        fs::remove_file(&key).unwrap();
        assert!(failed(&mut file).contains("tls_server_config.key_file"), "{:?}", file.problems);
        unchanged(&mut file);
        fs::create_dir(&key).unwrap();
        assert!(failed(&mut file).contains("is not a regular file"));
        fs::remove_dir(&key).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &key, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // The problem is the same as before, and opening the pipe does not wait for a writer.
        unchanged(&mut file);
        fs::remove_file(&key).unwrap();
        folder.write("server.key", &"x".repeat(1024 * 1024 + 1));
        assert!(failed(&mut file).contains("is larger than 1 MiB"));
        fs::remove_file(folder.config()).unwrap();
        assert!(failed(&mut file).contains("web.yaml: cannot be read"));
        assert!(file.result().is_err());
        assert!(Arc::ptr_eq(&good, file.web()));
        folder.configure("");
        folder.write("server.key", &server.key);
        changed(&mut file);
    }

    #[test]
    fn an_empty_file_does_not_turn_tls_and_logins_off_and_an_empty_mapping_does() {
        let folder = Folder::of_server(&pair(), "");
        let mut file = open(&folder);
        for nothing in ["", "\n", "# nothing\n  # at all\n"] {
            folder.write("web.yaml", nothing);
            let change = file.check();
            assert!(matches!(change, WebChange::Failed(_)), "{change:?}");
            assert!(file.web().tls.is_some() && file.result().is_err());
        }
        folder.write("web.yaml", "{}");
        changed(&mut file);
        assert!(file.web().tls.is_none());
        folder.write("web.yaml", "");
        changed(&mut file);
    }

    #[test]
    fn a_half_written_certificate_is_used_once_it_is_complete() {
        let folder = Folder::of_server(&pair(), "");
        let mut file = open(&folder);
        let before = shown(&file);
        let renewed = pair();
        folder.write("server.key", &renewed.key);
        folder.write("server.pem", &renewed.certificate[..renewed.certificate.len() / 2]);
        assert!(failed(&mut file).contains("is damaged"));
        assert_eq!(shown(&file), before);
        folder.write("server.pem", "");
        assert!(failed(&mut file).contains("has no certificate"));
        folder.write("server.pem", &renewed.certificate);
        changed(&mut file);
        assert_ne!(shown(&file), before);
    }

    #[test]
    fn a_renewed_certificate_is_used_once_its_key_is_there() {
        let folder = Folder::of_server(&pair(), "");
        let mut file = open(&folder);
        let renewed = pair();
        folder.write("server.pem", &renewed.certificate);
        let problem = failed(&mut file);
        assert!(problem.contains("server.key is not the key of the certificate"), "{problem}");
        unchanged(&mut file);
        folder.write("server.key", &renewed.key);
        changed(&mut file);
    }

    #[test]
    fn only_new_problems_are_reported() {
        let folder = Folder::new();
        folder.write("web.yaml", "");
        let mut file = open(&folder);
        folder.write("web.yaml", "{a: b}");
        assert!(failed(&mut file).contains("a: is not"));
        folder.write("web.yaml", "{a: b, c: d}");
        let problems = failed(&mut file);
        assert!(problems.contains("c: is not") && !problems.contains("a: is not"), "{problems}");
        assert_eq!(file.result().unwrap_err().0.len(), 2);
        folder.write("web.yaml", "");
        changed(&mut file);
    }

    #[test]
    fn each_change_comes_with_its_warnings() {
        let authority = Authority::new("servers");
        let folder = Folder::of_server(&authority.issue(&[]), "");
        let mut file = open(&folder);
        let expired = authority.issue_expired(&[]);
        folder.write("server.pem", &expired.certificate);
        folder.write("server.key", &expired.key);
        let WebChange::Changed(warnings) = file.check() else { panic!("it is good") };
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].ends_with("server.pem has a certificate that expired at 2021-02-03T00:00:00.000Z"));
    }
}
