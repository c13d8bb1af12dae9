//! Protection from pages of other sites, which could use a browser against the exporter.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of every response: nothing may be framed, sniffed, cached or read by other sites, and pages load nothing.
const PROTECTION: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Adds the protection to the headers of a response that has none of its own. Configured headers replace it.
pub(super) fn protect(headers: &mut HeaderMap, configured: &[(HeaderName, HeaderValue)]) {
    for (name, value) in &PROTECTION {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    for (name, value) in configured {
        headers.insert(name, value.clone());
    }
}

/// The protection of a page: it loads the exporter's style and script, runs no inline code, and requests nothing
/// from other sites. Browsers may cache it, and revalidate it each time. Its forms say where they come from, because
/// [`is_cross_site`] wants to know.
pub(super) fn protect_page(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    allow_caching(headers);
}

/// Lets the client cache a response, and revalidate it each time.
pub(super) fn allow_caching(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

/// Whether a page of another origin made a request. Browsers say so in a header, other programs send none.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return !sites.all(|site| site == "same-origin" || site == "none");
    }
    // Browsers that are too old for that header.
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_own = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    !headers.get_all(ORIGIN).iter().all(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append::<HeaderName>(name, value);
        }
        headers
    }

    #[test]
    fn programs_and_own_pages_may_write_and_pages_of_other_sites_may_not() {
        for own in [
            &[("host", "exporter:10058")][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("host", "exporter:10058"), ("origin", "http://exporter:10058")],
            &[("host", "Exporter"), ("origin", "https://exporter")],
            // Behind a proxy that sets another host.
            &[("host", "10.0.0.1"), ("origin", "https://exporter"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!is_cross_site(&headers(own)), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("host", "exporter:10058"), ("origin", "http://exporter")],
            &[("host", "exporter:10058"), ("origin", "http://exporter:10059")],
            &[("host", "exporter"), ("origin", "http://exporter.evil")],
            &[("host", "exporter"), ("origin", "null")],
            &[("host", "exporter"), ("origin", "ftp://exporter")],
            &[("host", "exporter"), ("origin", "http://exporter"), ("origin", "http://evil")],
            &[("origin", "http://exporter")],
        ] {
            assert!(is_cross_site(&headers(other)), "{other:?}");
        }
    }

    #[test]
    fn configured_headers_replace_the_default_ones() {
        let mut response = headers(&[("content-security-policy", "else")]);
        protect(&mut response, &[(CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors https://a"))]);
        let all: Vec<_> = response.get_all(CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(all, ["frame-ancestors https://a"]);
        assert_eq!(response[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response[CACHE_CONTROL], "no-store");
    }
}
