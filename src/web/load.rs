//! Reading the web configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Web;
use super::config;
use super::files::Seen;
use crate::clock;
use crate::document::{Problem, Problems};

/// How often the files are read at most, if they are swapped while they are read.
const MOST_READINGS: usize = 3;

/// The web configuration file, with what it says and what was last seen of it.
#[derive(Debug)]
pub struct WebFile {
    path: PathBuf,
    /// The last that was good.
    web: Arc<Web>,
    /// What is wrong with it now.
    problems: Vec<Problem>,
    seen: Seen,
}

/// What is other than at the look before.
#[derive(Debug)]
pub(super) enum WebChange {
    /// Nothing is.
    None,
    /// There is another good configuration, with what is valid in it but perhaps not meant.
    Changed(Vec<Problem>),
    /// It is not good, with the problems that it did not have before. The last good one stays.
    Failed(Vec<Problem>),
}

/// What was read, and what came of it: a configuration and what is to be warned of, or problems.
struct Loaded {
    seen: Seen,
    /// Whether the file says nothing at all, not even `{}`.
    is_blank: bool,
    outcome: Result<(Web, Vec<Problem>), Problems>,
}

// === impl WebFile ===

impl WebFile {
    /// Reads the file and the files that it names. Returns what is valid but perhaps not meant beside
    /// it. Blocks.
    ///
    /// # Errors
    /// Every problem that there is.
    pub fn open(path: &Path) -> Result<(Self, Vec<Problem>), Problems> {
        let Loaded { seen, outcome, .. } = Loaded::read(path);
        let (web, warnings) = outcome?;
        Ok((Self { path: path.to_owned(), web: Arc::new(web), problems: Vec::new(), seen }, warnings))
    }

    /// What it says, or said when it was last good.
    pub fn web(&self) -> &Arc<Web> {
        &self.web
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it now.
    ///
    /// # Errors
    /// Every problem that there is.
    pub(super) fn judgement(&self) -> Result<(), Problems> {
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems.clone())) }
    }

    /// Looks at all of its files again. Blocks.
    pub(super) fn look(&mut self) -> WebChange {
        if self.seen.is_current() {
            return WebChange::None;
        }
        let Loaded { seen, is_blank, mut outcome } = Loaded::read(&self.path);
        self.seen = seen;
        if is_blank && self.web.protects() {
            // Shells empty a file before they write it, and a disk may be full.
            let what = "is empty, which would turn TLS and logins off: write {} if that is meant".to_owned();
            let origin = self.path.display().to_string();
            outcome = Err(Problems(vec![Problem::new(origin, "", what)]));
        }
        match outcome {
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
    /// Reads all files as they are at one time: a certificate is not put together with the key that
    /// came after it.
    fn read(path: &Path) -> Self {
        let mut loaded = Self::read_once(path);
        for _ in 1..MOST_READINGS {
            if loaded.seen.is_current() {
                break;
            }
            loaded = Self::read_once(path);
        }
        loaded
    }

    fn read_once(path: &Path) -> Self {
        let mut seen = Seen::default();
        let text = seen.read(path);
        let is_blank = text.as_ref().is_ok_and(|text| says_nothing(text));
        let outcome = match text {
            Ok(text) => config::web(path, &text, &mut |named| seen.read(named), clock::now()),
            Err(what) => Err(Problems(vec![Problem::new(path.display().to_string(), "", what)])),
        };
        Self { seen, is_blank, outcome }
    }
}

/// Whether a text has nothing but blank lines and comments.
fn says_nothing(text: &[u8]) -> bool {
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

    /// The problems that are new at this look, of which there must be some.
    fn failed(file: &mut WebFile) -> String {
        match file.look() {
            WebChange::Failed(problems) if !problems.is_empty() => Problems(problems).to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn changed(file: &mut WebFile) {
        let before = file.web().clone();
        let news = file.look();
        assert!(matches!(news, WebChange::Changed(_)), "{news:?}");
        assert!(!Arc::ptr_eq(&before, file.web()));
        assert_eq!(file.judgement(), Ok(()));
    }

    fn unchanged(file: &mut WebFile) {
        let news = file.look();
        assert!(matches!(news, WebChange::None), "{news:?}");
    }

    /// The certificate that is shown now.
    fn shown(file: &WebFile) -> String {
        format!("{:?}", file.web().tls.as_ref().unwrap().server.cert_resolver)
    }

    #[test]
    fn what_is_touched_but_the_same_is_no_news() {
        let server = pair();
        let folder = Folder::of_server(&server, "");
        let mut file = open(&folder);
        unchanged(&mut file);
        fs::remove_file(folder.path("server.key")).unwrap();
        folder.write("server.key", &server.key);
        unchanged(&mut file);
    }

    #[test]
    fn another_certificate_or_configuration_is_taken_over() {
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
        // What is named no more is not looked at.
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
    fn a_file_that_cannot_be_read_is_said_once_and_what_was_good_stays() {
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
        // It is as bad as before, and nobody waits for who would write to it.
        unchanged(&mut file);
        fs::remove_file(&key).unwrap();
        folder.write("server.key", &"x".repeat(1024 * 1024 + 1));
        assert!(failed(&mut file).contains("is larger than 1 MiB"));
        fs::remove_file(folder.config()).unwrap();
        assert!(failed(&mut file).contains("web.yaml: cannot be read"));
        assert!(file.judgement().is_err());
        assert!(Arc::ptr_eq(&good, file.web()));
        folder.configure("");
        folder.write("server.key", &server.key);
        changed(&mut file);
    }

    #[test]
    fn a_file_that_is_emptied_does_not_turn_tls_and_logins_off_and_one_that_says_so_does() {
        let folder = Folder::of_server(&pair(), "");
        let mut file = open(&folder);
        for nothing in ["", "\n", "# nothing\n  # at all\n"] {
            folder.write("web.yaml", nothing);
            let news = file.look();
            assert!(matches!(news, WebChange::Failed(_)), "{news:?}");
            assert!(file.web().tls.is_some() && file.judgement().is_err());
        }
        folder.write("web.yaml", "{}");
        changed(&mut file);
        assert!(file.web().tls.is_none());
        folder.write("web.yaml", "");
        changed(&mut file);
    }

    #[test]
    fn a_half_written_certificate_is_taken_when_it_is_whole() {
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
    fn a_certificate_without_its_key_is_taken_when_the_key_comes() {
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
    fn only_problems_that_are_new_are_told() {
        let folder = Folder::new();
        folder.write("web.yaml", "");
        let mut file = open(&folder);
        folder.write("web.yaml", "{a: b}");
        assert!(failed(&mut file).contains("a: is not"));
        folder.write("web.yaml", "{a: b, c: d}");
        let problems = failed(&mut file);
        assert!(problems.contains("c: is not") && !problems.contains("a: is not"), "{problems}");
        assert_eq!(file.judgement().unwrap_err().0.len(), 2);
        folder.write("web.yaml", "");
        changed(&mut file);
    }

    #[test]
    fn what_is_valid_but_may_not_be_meant_is_told_with_each_change() {
        let authority = Authority::new("servers");
        let folder = Folder::of_server(&authority.issue(&[]), "");
        let mut file = open(&folder);
        let expired = authority.issue_expired(&[]);
        folder.write("server.pem", &expired.certificate);
        folder.write("server.key", &expired.key);
        let WebChange::Changed(warnings) = file.look() else { panic!("it is good") };
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].ends_with("server.pem has a certificate that expired at 2021-02-03T00:00:00.000Z"));
    }

    #[test]
    fn files_that_changed_since_they_were_read_are_not_current() {
        let folder = Folder::new();
        let path = folder.path("a");
        let mut seen = Seen::default();
        assert!(seen.read(&path).is_err());
        assert!(seen.is_current());
        folder.write("a", "1");
        assert!(!seen.is_current());
        // What was read first was another one.
        assert_eq!(**seen.read(&path).unwrap(), *b"1");
        assert!(!seen.is_current());
    }
}
