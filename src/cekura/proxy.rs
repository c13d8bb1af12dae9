//! The proxies that the environment names.
//!
//! A variable that cannot be used is an error and never means "no proxy", because then the key would bypass a
//! proxy that is meant to control where it goes.

use std::ffi::OsString;
use std::net::IpAddr;

use url::Url;

/// The proxies that the environment names, and the exceptions that need none.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<Exception>,
}

/// A variable of the environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadProxy {
    /// The name of the variable.
    pub variable: &'static str,
    /// What is wrong with its value and what would be right. Does not quote it, because it may have a password.
    pub what: String,
}

/// An entry of `NO_PROXY`: hosts that need no proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network { address: IpAddr, bits: u8 },
    Address { address: IpAddr, port: Option<u16> },
    Domain { name: String, itself: bool, port: Option<u16> },
}

// === impl Proxies ===

impl Proxies {
    /// Reads the proxies from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` for both, and `NO_PROXY`, or from the same
    /// names in lower case.
    ///
    /// # Errors
    /// Each variable that cannot be used.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<BadProxy>> {
        let mut bad = Vec::new();
        let mut proxy = |names: [&'static str; 2]| {
            first(&variable, names).and_then(|(name, value)| match url(&value) {
                Ok(url) => Some(url),
                Err(what) => {
                    bad.push(BadProxy { variable: name, what });
                    None
                }
            })
        };
        let all = proxy(["ALL_PROXY", "all_proxy"]);
        let http = proxy(["HTTP_PROXY", "http_proxy"]);
        let https = proxy(["HTTPS_PROXY", "https_proxy"]);
        let exceptions = first(&variable, ["NO_PROXY", "no_proxy"]).map(|(_, value)| exceptions(&value));
        if variable("REQUEST_METHOD").is_some() && first(&variable, ["HTTP_PROXY"; 2]).is_some() {
            // A CGI server sets it from the `Proxy` header of the request.
            let what = "cannot be trusted beside REQUEST_METHOD: set http_proxy in lower case".to_owned();
            bad.push(BadProxy { variable: "HTTP_PROXY", what });
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Self {
            http: http.or_else(|| all.clone()),
            https: https.or(all),
            exceptions: exceptions.unwrap_or_default(),
        })
    }

    /// The proxy for this URL.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.exceptions.iter().any(|exception| exception.covers(url)))
    }
}

/// The name and the trimmed value of the first of these variables that is not blank.
fn first(variable: &impl Fn(&str) -> Option<OsString>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let value = |name: &'static str| {
        let value = variable(name)?.to_string_lossy().trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    };
    names.into_iter().find_map(value)
}

/// The URL of a proxy. The default scheme is `http`.
fn url(value: &str) -> Result<Url, String> {
    const RIGHT: &str = "write http://host:port or http://user:password@host:port, and in user and password write \
                         other characters than letters, digits and -._~!$&'()*+,;= as %XX";
    let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if !["http", "https", "socks4", "socks4a", "socks5", "socks5h"].contains(&scheme.as_str()) {
        return Err(
            "has a scheme that is not supported: use http, https, socks4, socks4a, socks5 or socks5h".to_owned()
        );
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:%".contains(c);
    if login.is_some_and(|login| !login.chars().all(plain)) {
        return Err(format!("has a login with characters that a URL cannot have: {RIGHT}"));
    }
    if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._:[]".contains(c)) {
        return Err(format!("is not the URL of a proxy: {RIGHT}"));
    }
    Url::parse(&with_scheme).map_err(|_| format!("is not the URL of a proxy: {RIGHT}"))
}

/// Parses `NO_PROXY` as programs in Go do.
fn exceptions(value: &str) -> Vec<Exception> {
    value.split(',').filter_map(|entry| Exception::parse(&entry.trim().to_lowercase())).collect()
}

// === impl Exception ===

impl Exception {
    /// `None` for an entry that matches no host.
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            return (bits <= most).then_some(Self::Network { address, bits });
        }
        let (host, port) = split_port(entry);
        let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
        if let Ok(address) = host.parse() {
            return Some(Self::Address { address, port });
        }
        let domain = host.strip_prefix('*').unwrap_or(host);
        let name = domain.strip_prefix('.').unwrap_or(domain);
        let itself = !domain.starts_with('.');
        (!name.is_empty()).then(|| Self::Domain { name: name.to_owned(), itself, port })
    }

    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let has_port = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match self {
            Self::All => true,
            Self::Network { address: network, bits } => address.is_some_and(|address| is_in(address, *network, *bits)),
            Self::Address { address: own, port } => address == Some(*own) && has_port(port),
            Self::Domain { name, itself, port } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || (*itself && host == name)) && has_port(port)
            }
        }
    }
}

/// Splits off the port. An IPv6 address without brackets has none.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let (host, port) = entry.rsplit_once(':').unwrap_or((entry, ""));
    let bare = host.contains(':') && !host.starts_with('[');
    match port.parse() {
        Ok(port) if !bare => (host, Some(port)),
        _ => (entry, None),
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same =
        |a: u128, b: u128, width: u8| a.checked_shr((width - bits).into()) == b.checked_shr((width - bits).into());
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => same(address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => same(address.to_bits(), network.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Proxies, Vec<BadProxy>> {
        Proxies::from_env(|name| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into()))
    }

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        of(variables).unwrap().of(&url.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy_and_values_are_trimmed() {
        let both = [("HTTP_PROXY", " http://a:1\n"), ("https_proxy", "b:2"), ("ALL_PROXY", "\t")];
        assert_eq!(proxy(&both, "http://x"), Some("http://a:1/".to_owned()));
        assert_eq!(proxy(&both, "https://x"), Some("http://b:2/".to_owned()));
        assert_eq!(
            proxy(&[("HTTP_PROXY", ""), ("http_proxy", "HTTP://low")], "http://x"),
            Some("http://low/".to_owned())
        );
        let all = [("ALL_PROXY", "socks5h://u:p%20w@s:3/"), ("HTTPS_PROXY", "https://[::1]:4")];
        assert_eq!(proxy(&all, "http://x"), Some("socks5h://u:p%20w@s:3/".to_owned()));
        assert_eq!(proxy(&all, "https://x"), Some("https://[::1]:4/".to_owned()));
        let cgi = [("REQUEST_METHOD", "GET"), ("http_proxy", "low")];
        assert_eq!(proxy(&cgi, "http://x"), Some("http://low/".to_owned()));
        assert_eq!(proxy(&[], "http://x"), None);
    }

    #[test]
    fn an_invalid_value_is_an_error_that_does_not_quote_it() {
        for value in [
            "http//h:3128",
            "htp://h",
            "http:/h",
            "http://u:se[cret@h",
            "http://u:se cret@h",
            "corp\\user:pw@h",
            "http://",
            "http://h:port",
            "http://h:99999",
            "h/path",
            "http://h?q",
            "http://h#f",
            "http://u:p@",
            "h h",
            "ftp://h",
            "http://u:p#w@h",
            "http://u:p/w@h",
        ] {
            let bad = of(&[("HTTPS_PROXY", value), ("HTTP_PROXY", "good")]).err().unwrap_or_default();
            assert_eq!(bad.len(), 1, "{value}");
            assert_eq!(bad[0].variable, "HTTPS_PROXY");
            assert!(!bad[0].what.contains("cret") && !bad[0].what.contains("3128"), "{}", bad[0].what);
        }
        let cgi = of(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil")]).err().unwrap_or_default();
        assert!(cgi.len() == 1 && cgi[0].variable == "HTTP_PROXY", "{cgi:?}");
        assert_eq!(of(&[("ALL_PROXY", "htp://h"), ("http_proxy", "htp://h")]).err().map(|bad| bad.len()), Some(2));
    }

    #[test]
    fn exceptions_are_read_as_programs_in_go_read_them() {
        for (entries, url, goes_around) in [
            ("*", "https://api.example.com", true),
            ("a.invalid, *", "https://api.example.com", true),
            ("example.com", "https://api.example.com", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://anexample.com", false),
            (".example.com", "https://api.example.com", true),
            (".example.com", "https://example.com", false),
            ("*.example.com", "https://api.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("Example.COM", "https://api.example.com", true),
            ("example.com.", "https://api.example.com", true),
            ("example.com", "https://api.example.com./", true),
            ("example.com:443", "https://api.example.com", true),
            ("example.com:8443", "https://api.example.com", false),
            (".example.com:8443", "https://api.example.com:8443", true),
            ("10.0.0.0/8", "http://10.1.2.3", true),
            ("10.0.0.0/8", "http://11.1.2.3", false),
            ("0.0.0.0/0", "http://11.1.2.3", true),
            ("10.1.2.3", "http://10.1.2.3:8080", true),
            ("10.1.2.3:80", "http://10.1.2.3:8080", false),
            ("10.1.2.3:8080", "http://10.1.2.3:8080", true),
            ("[::1]", "http://[::1]:8080", true),
            ("::1", "http://[::1]", true),
            ("[::1]:80", "http://[::1]:8080", false),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("fd00::/8", "http://[fd12::1]", true),
            ("::/0", "http://10.1.2.3", false),
            ("", "http://a", false),
            (" , ,:80,/,.", "http://a", false),
        ] {
            let variables = [("ALL_PROXY", "http://proxy"), ("no_proxy", entries)];
            assert_eq!(proxy(&variables, url).is_none(), goes_around, "{entries:?} {url}");
        }
    }
}
