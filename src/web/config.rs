//! Parsing the web configuration, which has the format of the Prometheus exporter-toolkit.
//!
//! A setting that restricts access is honoured or refused and never ignored, because its author relies on it.
//! `http2` and `rate_limit` restrict no access, and files of other exporters have them, so they only cause a
//! warning.

use std::path::Path;

use hyper::header::{HeaderName, HeaderValue};
use rustls::RootCertStore;

use super::certificate::Chain;
use super::clients::{ClientAuth, ClientCertificates};
use super::protocol::{Curve, Protocol, Suite, Version};
use super::tls::Identity;
use super::{PasswordHash, Tls, Users, Web};
use crate::document::{
    DocumentSource, Node, Place, Problem, Problems, Section, Show, not_empty_path, switch, text_of, validated, yaml,
};
use crate::input_file::Content;
use crate::pem::{self, is_pem};
use crate::toggle::Timestamp;

/// Reads a file that the configuration names.
type FileReader<'r> = &'r mut dyn FnMut(&Path) -> Result<Content, String>;

/// The headers that can be set, and their valid values; empty for any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// Parses the web configuration `text` of `file` and the files that it names. Returns it with its warnings.
///
/// # Errors
/// Every problem. They quote no values except paths and names that the format defines.
pub(crate) fn parse_web(
    file: &Path,
    text: &[u8],
    read: FileReader<'_>,
    now: Timestamp,
) -> Result<(Web, Vec<Problem>), Problems> {
    let mut warnings = Vec::new();
    let source = DocumentSource::File(file);
    let text = text_of(source, text)?;
    let web = validated(source, yaml::parse(text, source), |node| {
        let root = node.section()?;
        let tls = root.take("tls_server_config").and_then(|node| parse_tls(node, read, now, &mut warnings));
        let headers = root.take("http_server_config").map(|node| parse_http(node, &mut warnings)).unwrap_or_default();
        warnings.extend(root.take("rate_limit").and_then(parse_rate_limit));
        let users = root.take("basic_auth_users").map(|node| parse_users(node, &mut warnings)).unwrap_or_default();
        root.finish();
        Some(Web { tls, users, headers })
    });
    web.map(|web| (web.unwrap_or_default(), warnings))
}

/// Parses the TLS section; `None` if it is empty or invalid.
fn parse_tls(node: Node<'_>, read: FileReader<'_>, now: Timestamp, warnings: &mut Vec<Problem>) -> Option<Tls> {
    if node.is_empty() {
        return None;
    }
    let place = node.place();
    let section = node.section()?;
    let identity = parse_identity(&section, read, now, warnings);
    let clients = parse_clients(&section, read);
    let protocol = parse_protocol(&section);
    section.finish();
    Tls::new(identity?, clients?, &protocol?).map_err(|what| place.note(what)).ok()
}

fn parse_identity(
    section: &Section<'_>,
    read: FileReader<'_>,
    now: Timestamp,
    warnings: &mut Vec<Problem>,
) -> Option<Identity> {
    let chain_pem = Pem::require(section, "cert_file", "cert", read);
    let key_pem = Pem::require(section, "key_file", "key", read);
    let chain = chain_pem.as_ref().and_then(|pem| pem.parsed(Chain::parse));
    let key = key_pem.as_ref().and_then(|pem| pem.parsed(pem::key));
    let (chain, key) = (chain?, key?);
    let validity = chain.validity;
    let identity = Identity::new(chain, key).map_err(|what| key_pem.iter().for_each(|pem| pem.note(what))).ok()?;
    if validity.until < now {
        warnings.push(chain_pem?.warning(&format!("has a certificate that expired at {}", validity.until)));
    } else if validity.from > now {
        warnings.push(chain_pem?.warning(&format!("has a certificate that is not valid before {}", validity.from)));
    }
    Some(identity)
}

fn parse_clients(section: &Section<'_>, read: FileReader<'_>) -> Option<ClientCertificates> {
    let auth = match section.take("client_auth_type") {
        Some(node) => node.parsed(Show::Value, ClientAuth::parse),
        None => Some(ClientAuth::No),
    };
    let ca = Pem::take(section, "client_ca_file", "client_ca", read);
    let names = section.take("client_allowed_sans");
    let names_place = names.as_ref().map(Node::place);
    // The outer option says whether the key is set, the inner one whether its value is valid.
    let names: Option<Option<Vec<String>>> = names.map(parse_allowed_names);
    let auth = auth?;
    let authorities = match ca {
        // Without verification, the authorities are a hint for clients which certificate to choose.
        Some(ca) if auth != ClientAuth::No => ca.parsed(|text| pem::authorities(&pem::certificates(text)?)),
        Some(ca) => {
            let what = format!("has no effect, because client_auth_type is {}", auth.as_str());
            ca.place.note(format!("{what}: set that to RequireAndVerifyClientCert, or take this away"));
            None
        }
        None if auth.verifies() => {
            let what = "is missing: the certificates of the authorities of clients are needed, here or in client_ca";
            section.note("client_ca_file", format!("{what}, because client_auth_type is {}", auth.as_str()));
            None
        }
        None => Some(RootCertStore::empty()),
    };
    if let Some(place) = names_place.filter(|_| auth != ClientAuth::RequireAndVerify) {
        let what = "keeps nobody out unless client_auth_type is RequireAndVerifyClientCert";
        place.note(format!("{what}: set that, or take this away"));
    }
    let names = match names {
        Some(names) => Some(names?),
        None => None,
    };
    Some(ClientCertificates { auth, authorities: authorities?, names })
}

/// The names of which the certificate of a client must have one; `None` if they are invalid.
fn parse_allowed_names(list: Node<'_>) -> Option<Vec<String>> {
    if list.is_empty() {
        list.note("is empty, which would let nobody in: name somebody, or take it away");
        return None;
    }
    let named = |text: &str| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) };
    parse_distinct(list, Show::Nothing, named)
}

fn parse_protocol(section: &Section<'_>) -> Option<Protocol> {
    let versions = parse_versions(section);
    let suites = section.take("cipher_suites").map_or(Some(Vec::new()), |node| parse_suites(node, versions.as_deref()));
    let curves = section
        .take("curve_preferences")
        .map_or(Some(Vec::new()), |node| parse_distinct(node, Show::Value, Curve::parse));
    let prefers_own_order = section.parse("prefer_server_cipher_suites", switch);
    Some(Protocol {
        versions: versions?,
        suites: suites?,
        curves: curves?,
        prefers_own_order: prefers_own_order.unwrap_or(true),
    })
}

/// The versions from the lowest to the highest; `None` if they are invalid.
fn parse_versions(section: &Section<'_>) -> Option<Vec<Version>> {
    let (min, min_place) = parse_version(section, "min_version", Version::Tls12);
    let (max, _) = parse_version(section, "max_version", Version::Tls13);
    let (min, max) = (min?, max?);
    if min > max {
        // The defaults are the lowest and the highest version, so min_version is set.
        min_place?.note(format!("is above max_version, which is {}", max.as_str()));
        return None;
    }
    Some([Version::Tls12, Version::Tls13].into_iter().filter(|version| (min..=max).contains(version)).collect())
}

/// A version and its place. `None` for an invalid one.
fn parse_version<'a>(
    section: &'a Section<'_>,
    key: &'static str,
    default: Version,
) -> (Option<Version>, Option<Place<'a>>) {
    match section.take(key) {
        Some(node) => (node.parsed(Show::Value, Version::parse), Some(node.place())),
        None => (Some(default), None),
    }
}

/// The cipher suites. Each must belong to one of the versions, if these are valid.
fn parse_suites(list: Node<'_>, versions: Option<&[Version]>) -> Option<Vec<Suite>> {
    parse_distinct(list, Show::Value, |text| {
        let suite = Suite::parse(text)?;
        let version = suite.version();
        if versions.is_none_or(|versions| versions.contains(&version)) {
            return Ok(suite);
        }
        let limit = if version == Version::Tls12 { "min_version" } else { "max_version" };
        Err(format!("is of {}, which {limit} rules out: take one of them away", version.as_str()))
    })
}

/// The elements of a list, which must be distinct; `None` if one is invalid or repeated.
fn parse_distinct<T: PartialEq, E: AsRef<str>>(
    list: Node<'_>,
    show: Show,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<T>> {
    let mut parsed: Vec<Option<T>> = Vec::new();
    for node in list.items() {
        let element = node.parsed(show, &parse);
        if let Some(first) = parsed.iter().position(|earlier| earlier.is_some() && *earlier == element) {
            node.note(format!("is the same as [{first}]: keep one of them"));
        }
        parsed.push(element);
    }
    parsed.into_iter().collect()
}

/// Parses the HTTP section. Returns the headers that it sets.
fn parse_http(node: Node<'_>, warnings: &mut Vec<Problem>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(section) = node.section() else { return Vec::new() };
    if let Some(node) = section.take("http2")
        && node.parsed(Show::Value, switch) == Some(true)
    {
        warnings.push(node.place().warning("HTTP/2 is not spoken: clients use HTTP/1.1"));
    }
    let headers = section.take("headers").and_then(|node| node.section().map(|section| parse_headers(&section)));
    section.finish();
    headers.unwrap_or_default()
}

/// A warning if there are limits. Their values are not read.
fn parse_rate_limit(node: Node<'_>) -> Option<Problem> {
    if node.is_empty() {
        return None;
    }
    let place = node.place();
    let section = node.section()?;
    for key in ["interval", "burst"] {
        section.take(key);
    }
    section.finish();
    let what =
        "rate_limit is not honoured: bound connections with web.max_connections and web.max_connections_per_peer";
    Some(place.warning(what))
}

/// The headers that are set. An empty value sets none.
fn parse_headers(section: &Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, allowed) in HEADERS {
        // The outer option is `None` if the header is not set or invalid, the inner one if its value is empty.
        let value = section.parse_quietly(name, |text| parse_header_value(text, allowed)).flatten();
        let named = HeaderName::from_bytes(name.as_bytes()).ok();
        headers.extend(named.zip(value));
    }
    section.finish();
    headers
}

fn parse_header_value(text: &str, allowed: &[&str]) -> Result<Option<HeaderValue>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if !allowed.is_empty() && !allowed.contains(&text) {
        return Err(format!("is not a value of this header: {} is needed", allowed.join(" or ")));
    }
    let sendable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(text).ok().filter(|_| sendable);
    value.map(Some).ok_or_else(|| "cannot be sent: one line of visible ASCII characters is needed".to_owned())
}

fn parse_users(node: Node<'_>, warnings: &mut Vec<Problem>) -> Users {
    let place = node.place();
    let parsed = node.entries().into_iter().flatten().filter_map(|(name, node)| {
        if name.starts_with("$2") {
            // Name and hash are swapped. The path of a problem would show the hash.
            place.note("has a hash in the place of a name: each entry is `NAME: HASH`");
            return None;
        }
        if let Err(what) = check_user_name(name) {
            node.note(what);
        }
        let hash = node.parsed(Show::Nothing, PasswordHash::parse)?;
        Some((name.to_owned(), hash))
    });
    let users: Users = parsed.collect();
    if users.costs_differ() {
        let what = "has hashes of different costs: how long a failed login takes tells which users there are";
        warnings.push(place.warning(what));
    }
    users
}

fn check_user_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is an empty name, which is nobody's")
    } else if name.contains(|c: char| c == ':' || c.is_control()) {
        Err("is a name that cannot be sent: it may have no colon and no control character")
    } else {
        Ok(())
    }
}

/// A PEM text, from a file or from the configuration itself.
struct Pem<'a> {
    place: Place<'a>,
    /// The file and a space, with which problems begin; empty for a text of the configuration.
    prefix: String,
    /// `None` if it could not be read, which is noted.
    text: Option<Content>,
}

// === impl Pem ===

impl<'a> Pem<'a> {
    /// Reads the text that one of two keys sets; `None` if neither is set.
    fn take(
        section: &'a Section<'_>,
        file_key: &'static str,
        text_key: &'static str,
        read: FileReader<'_>,
    ) -> Option<Self> {
        let file = section.take(file_key);
        let text = section.take(text_key);
        match (file, text) {
            (Some(file), None) => Some(Self::of_file(&file, text_key, read)),
            (None, Some(text)) => Some(Self::of_text(text)),
            (Some(file), Some(_)) => {
                file.note(format!("is set beside {text_key}: keep one of them"));
                Some(Self { place: file.place(), prefix: String::new(), text: None })
            }
            (None, None) => None,
        }
    }

    /// Like [`Pem::take`], but notes a problem if neither is set.
    fn require(
        section: &'a Section<'_>,
        file_key: &'static str,
        text_key: &'static str,
        read: FileReader<'_>,
    ) -> Option<Self> {
        let taken = Self::take(section, file_key, text_key, read);
        if taken.is_none() {
            section.note(file_key, format!("is missing: TLS needs it, or its text in {text_key}"));
        }
        taken
    }

    fn of_text(node: Node<'a>) -> Self {
        let place = node.place();
        let text = node.text().map(|text| Content::new(text.as_bytes().to_vec()));
        Self { place, prefix: String::new(), text }
    }

    fn of_file(node: &Node<'a>, text_key: &str, read: FileReader<'_>) -> Self {
        let place = node.place();
        let path = node.parsed(Show::Nothing, |text| {
            if is_pem(text) || text.contains(char::is_control) {
                return Err(format!("is not the path of a file: PEM text belongs in {text_key}"));
            }
            not_empty_path(text).map_err(str::to_owned)
        });
        let Some(path) = path.map(|path| node.resolve(&path)) else {
            return Self { place, prefix: String::new(), text: None };
        };
        let prefix = format!("{} ", path.display());
        let text = read(&path).map_err(|what| place.note(format!("{prefix}{what}"))).ok();
        Self { place, prefix, text }
    }

    /// Parses the text, and notes an error.
    fn parsed<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<T> {
        parse(self.text.as_ref()?).map_err(|what| self.note(&what)).ok()
    }

    fn note(&self, what: &str) {
        self.place.note(format!("{}{what}", self.prefix));
    }

    fn warning(&self, what: &str) -> Problem {
        self.place.warning(format!("{}{what}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "sk-secret-73";

    /// The configuration or the problems, as text, if all files have this content.
    fn parsed(text: &str, content: &str) -> String {
        let mut read = |_: &Path| Ok(Content::new(content.as_bytes().to_vec()));
        match parse_web(Path::new("web.yaml"), text.as_bytes(), &mut read, Timestamp::from_millis(0)) {
            Ok((web, warnings)) => format!("{web:?} {warnings:?}"),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_folder_of_the_file() {
        let mut paths = Vec::new();
        let mut read = |path: &Path| {
            paths.push(path.display().to_string());
            Err("cannot be read".to_owned())
        };
        let text = "tls_server_config: {cert_file: a, key_file: ../b, client_ca_file: /c, client_auth_type: \
                    VerifyClientCertIfGiven}";
        let problems =
            parse_web(Path::new("x/web.yaml"), text.as_bytes(), &mut read, Timestamp::from_millis(0)).unwrap_err();
        assert_eq!(problems.0.len(), 3);
        assert_eq!(paths, ["x/a", "x/../b", "/c"]);
    }

    #[test]
    fn problems_quote_no_value_that_may_be_secret() {
        let pem = format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----");
        for value in [SECRET, &pem, &format!("[{SECRET}]"), &format!("{{a: {SECRET}}}")] {
            let value = if value.starts_with('-') { format!("\"{value}\"") } else { value.to_owned() };
            for key in ["cert", "key", "client_ca", "client_allowed_sans", "unknown"] {
                let text =
                    format!("tls_server_config: {{client_auth_type: RequireAndVerifyClientCert, {key}: {value}}}");
                assert!(!parsed(&text, SECRET).contains(SECRET), "{text}: {}", parsed(&text, SECRET));
            }
            for (key, _) in HEADERS {
                let text = format!("http_server_config: {{headers: {{{key}: {value}, unknown: {value}}}}}");
                let shown = parsed(&text, SECRET);
                assert!(shown.starts_with("web.yaml:1:") && !shown.contains(SECRET), "{text}: {shown}");
            }
            let text = format!("basic_auth_users: {{a: {value}, b:c: {value}}}");
            assert!(!parsed(&text, SECRET).contains(SECRET), "{text}: {}", parsed(&text, SECRET));
        }
        let paths = "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c, client_auth_type: RequireAndVerifyClientCert}";
        assert!(!parsed(paths, SECRET).contains(SECRET));
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(
            keys in proptest::collection::vec(
                ("cert(_file)?|key(_file)?|client_(ca|ca_file|auth_type|allowed_sans)|(min|max)_version|cipher_suites|\
                  curve_preferences|http2|headers|\\PC{0,4}",
                 "TLS1[23]|X25519|(No|Request)ClientCert|true|\\[\\]|\\[a, a\\]|\\{\\}|\\PC{0,20}"),
                0..6,
            ),
            block in "(tls|http)_server_config|basic_auth_users",
            content in "(-----BEGIN (CERTIFICATE|PRIVATE KEY)-----\n)?[A-Za-z0-9+/\n]{0,40}(\n-----END CERTIFICATE-----)?",
        ) {
            let lines: Vec<_> = keys.iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
            let _ = parsed(&format!("{block}:\n{}", lines.concat()), &content);
        }
    }
}
