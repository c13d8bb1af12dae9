use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::settings::read_password;
use super::*;
use crate::config;

/// A URL as it is shown.
fn shown(url: &str) -> String {
    DatabaseUrl::parse(url).unwrap_or_else(|what| panic!("{url}: {what}")).to_string()
}

fn refused(url: &str) -> String {
    DatabaseUrl::parse(url).expect_err(url)
}

#[test]
fn the_forms_of_libpq_are_read() {
    for (url, expected) in [
        ("postgresql://u@h/d", "postgresql://u@h:5432/d?sslmode=prefer"),
        (" postgres://u@h:5433\n", "postgresql://u@h:5433?sslmode=prefer"),
        ("postgresql://u@h1:1,h2,h3:3/d?sslmode=verify-full", "postgresql://u@h1:1,h2:5432,h3:3/d?sslmode=verify-full"),
        ("postgresql://u:p%40%2F@h/d", "postgresql://u:<secret>@h:5432/d?sslmode=prefer"),
        ("postgresql://u:a:b?c#d@h", "postgresql://u:<secret>@h:5432?sslmode=prefer"),
        ("postgresql://u@[::1]:5433,[::2]/d", "postgresql://u@[::1]:5433,[::2]:5432/d?sslmode=prefer"),
        ("postgresql://u@%2Fvar%2Frun/d", "postgresql://u@%2Fvar%2Frun:5432/d?sslmode=prefer"),
        ("postgresql:///d?host=/var/run&user=u&port=5433", "postgresql://u@%2Fvar%2Frun:5433/d?sslmode=prefer"),
        ("postgresql://?host=a,b&user=u&password=p", "postgresql://u:<secret>@a:5432,b:5432?sslmode=prefer"),
        ("postgresql://?host=a,::1&port=1,2&user=u&dbname=d", "postgresql://u@a:1,[::1]:2/d?sslmode=prefer"),
        ("postgresql://u@?host=a,b&port=7", "postgresql://u@a:7,b:7?sslmode=prefer"),
        ("postgresql://u%20x@h/a%2Fb%20c", "postgresql://u%20x@h:5432/a%2Fb%20c?sslmode=prefer"),
        (
            "postgresql://u@h?sslmode=require&sslcert=/c.pem&sslkey=/k.pem&target_session_attrs=any&options=-c%20a=b\
             &channel_binding=require&connect_timeout=7&application_name=x%20y",
            "postgresql://u@h:5432?sslmode=require&sslcert=/c.pem&sslkey=/k.pem&target_session_attrs=any\
             &channel_binding=require&connect_timeout=7&application_name=x%20y&options=-c%20a%3Db",
        ),
        ("postgresql://u@h?target_session_attrs=read-write&connect_timeout=5", "postgresql://u@h:5432?sslmode=prefer"),
    ] {
        assert_eq!(shown(url), expected);
        assert_eq!(shown(&shown(url)), expected, "what is shown can be read back");
    }
}

#[test]
fn a_url_that_cannot_be_used_says_why_and_quotes_no_value() {
    for (url, what) in [
        ("", "is empty"),
        ("host=h password=hunter2", "is not a URL of PostgreSQL"),
        ("https://u:hunter2@h", "is not a URL of PostgreSQL"),
        ("postgresql://", "names no host"),
        ("postgresql://u:hunter2@", "names no host"),
        ("postgresql://u:hunter2@h,,i", "names no host"),
        ("postgresql://h/d", "names no user"),
        ("postgresql://:hunter2@h/d", "names no user"),
        ("postgresql://u:hunter2", "has a port that is not a number"),
        ("postgresql://u@h:0", "has a port that is not a number"),
        ("postgresql://u@h:65536", "has a port that is not a number"),
        ("postgresql://u@h:+1", "has a port that is not a number"),
        ("postgresql://u:hun@ter2@h/d", "that must be encoded"),
        ("postgresql://u:hun/ter2@h/d", "that must be encoded"),
        ("postgresql://u:12/hunter2@h/d", "that must be encoded"),
        ("postgresql://u@h/d/hunter2", "a second `/`"),
        ("postgresql://u:hunter2%zz@h", "has a `%` without"),
        ("postgresql://u:hunter2%ff@h", "is not UTF-8"),
        ("postgresql://u:hunter2%00@h", "has a zero byte"),
        ("postgresql://u@h x", "has a host that is neither"),
        ("postgresql://u@[::1", "has a `[` without a `]`"),
        ("postgresql://u@[::1]x", "something other than a port"),
        ("postgresql://u@[h:x]", "not an IPv6 address"),
        ("postgresql://u@h?hunter2", "has a parameter without `=`"),
        (
            "postgresql://u@h?sslmode=hunter2",
            "has a `sslmode` that is none of disable, prefer, require, verify-ca, verify-full",
        ),
        ("postgresql://u@h?sslmode=allow", "has a `sslmode` that is none of"),
        ("postgresql://u@h?sslmode=prefer&sslmode=require", "gives `sslmode` twice"),
        ("postgresql://u@h?user=v", "gives `user` twice"),
        ("postgresql://u:p@h?password=hunter2", "gives `password` twice"),
        ("postgresql://u@h/d?dbname=e", "gives `dbname` twice"),
        ("postgresql://u@h?host=i", "gives `host` twice"),
        ("postgresql://u@h?port=1", "gives `port` twice"),
        ("postgresql://u@?host=a,b,c&port=1,2", "another number of ports than of hosts"),
        (
            "postgresql://u@h?target_session_attrs=standby",
            "has a `target_session_attrs` that is none of read-write, any",
        ),
        ("postgresql://u@h?connect_timeout=0", "has a `connect_timeout` that is not"),
        ("postgresql://u@h?connect_timeout=5s", "has a `connect_timeout` that is not"),
        ("postgresql://u@h?sslcert=/c", "has `sslcert` without `sslkey`"),
        ("postgresql://u@h?sslkey=/k", "has `sslkey` without `sslcert`"),
        ("postgresql://u@h?sslcert=c&sslkey=/k", "has a relative path in `sslcert`"),
        ("postgresql://u@h?sslrootcert=/ca", "is the key `ca_file`"),
        ("postgresql://u@h?passfile=/p", "is the key `password_file`"),
        (
            "postgresql://u@h?ssl_mode=require",
            "has `ssl_mode`, which is not a known parameter: did you mean `sslmode`?",
        ),
        ("postgresql://u@h?service=x", "has `service`, which is not a known parameter; known here are host, port"),
        ("postgresql://u@h?Hunter2!=x", "has something, which is not a known parameter"),
    ] {
        let said = refused(url);
        assert!(said.contains(what), "{url}: {said}");
        assert!(!said.to_lowercase().contains("hunter2"), "{said}");
    }
}

#[test]
fn connections_that_others_may_read_or_redirect_are_weak() {
    let weakness = |url: &str| DatabaseUrl::parse(url).unwrap().weakness(false);
    for url in [
        "postgresql://u@h?sslmode=verify-full",
        "postgresql://u@localhost",
        "postgresql://u@127.0.0.2,[::1],%2Frun?sslmode=disable",
    ] {
        assert_eq!(weakness(url), None, "{url}");
    }
    for (url, what) in [
        ("postgresql://u@h", "sslmode=prefer encrypts connections only if nobody on the network prevents it"),
        ("postgresql://u@localhost,h?sslmode=disable", "sslmode=disable does not encrypt"),
        ("postgresql://u@192.0.2.1?sslmode=require", "sslmode=require does not verify who the server is"),
        ("postgresql://u@h?sslmode=verify-ca", "sslmode=verify-ca does not verify the name"),
    ] {
        let said = weakness(url).unwrap();
        assert!(said.starts_with(what) && said.ends_with("sslmode=verify-full is recommended"), "{said}");
    }
    let with_authorities = DatabaseUrl::parse("postgresql://u@h?sslmode=require").unwrap().weakness(true);
    assert!(with_authorities.unwrap().contains("does not verify the name"));
}

#[test]
fn settings_that_contradict_the_url_are_named_by_their_keys() {
    let settings = |password: bool, ca: bool| DatabaseSettings {
        url: UrlSource::File(PathBuf::from("/url")),
        password_file: password.then(|| PathBuf::from("/password")),
        ca_file: ca.then(|| PathBuf::from("/ca.pem")),
        lease: Duration::from_secs(15),
    };
    let wrong = |settings: &DatabaseSettings, rest: &str| {
        let url = DatabaseUrl::parse(&format!("postgresql://{rest}")).unwrap();
        settings.contradiction(&url).map(|(key, _)| key)
    };
    assert_eq!(wrong(&settings(true, false), "u:p@h"), Some("password_file"));
    assert_eq!(wrong(&settings(true, false), "u@h"), None);
    assert_eq!(wrong(&settings(false, true), "u@h"), Some("ca_file"));
    assert_eq!(wrong(&settings(false, true), "u@h?sslmode=disable"), Some("ca_file"));
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(wrong(&settings(false, true), &format!("u@h?sslmode={mode}")), None, "{mode}");
    }
    assert_eq!(wrong(&settings(false, false), "u@h?sslmode=verify-ca"), Some("ca_file"));
    assert_eq!(wrong(&settings(false, false), "u@h?sslmode=verify-full"), None);
}

#[test]
fn a_password_file_has_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let read = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        read_password(&path)
    };
    for (content, password) in [("p\n", "p"), ("p\r\n", "p"), (" p ", " p "), ("é\n", "é")] {
        assert_eq!(read(content.as_bytes()).unwrap(), DatabasePassword::of(password));
    }
    for (content, what) in
        [(&b""[..], "is empty"), (b"\n", "is empty"), (b"a\nb", "more than one line"), (b"\xff", "UTF-8")]
    {
        assert!(read(content).unwrap_err().contains(what));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(read_password(&path).unwrap_err().contains("cannot be read"));
}

#[tokio::test]
async fn no_server_and_no_file_is_an_error_that_names_it_without_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let at = |url: UrlSource, ca_file| {
        Connector::new(DatabaseSettings { url, password_file: None, ca_file, lease: DatabaseSettings::DEFAULT_LEASE })
    };
    let given = |url: &str| UrlSource::Given(DatabaseUrl::parse(url).unwrap());
    let failed = async |connector: &Connector| connector.connect().await.err().unwrap().to_string();

    let nobody = at(given("postgresql://u:hunter2@127.0.0.1:1,no-such-host.invalid,[::1]:1/d"), None);
    let said = failed(&nobody).await;
    let parts: Vec<_> = said.split("; ").collect();
    assert!(parts[0].starts_with("127.0.0.1:1: Connection refused"), "{said}");
    assert!(parts[1].starts_with("no-such-host.invalid:5432: the host's name was not resolved"), "{said}");
    assert!(parts[2].starts_with("[::1]:1: "), "{said}");
    assert!(!format!("{said}{nobody:?}").contains("hunter2"));

    let socket = failed(&at(given("postgresql://u@%2Fnowhere"), None)).await;
    assert!(socket.starts_with("/nowhere/.s.PGSQL.5432: No such file"), "{socket}");

    let (url, ca) = (folder.path().join("url"), folder.path().join("ca.pem"));
    let by_file = at(UrlSource::File(url.clone()), Some(ca.clone()));
    assert!(failed(&by_file).await.starts_with(&format!("{} cannot be read", url.display())));
    for (content, what) in [
        ("postgresql://u:hunter2@127.0.0.1:1,%zz", format!("{} has a `%`", url.display())),
        ("postgresql://u:hunter2@127.0.0.1:1", "ca_file is not used with sslmode=prefer".to_owned()),
        ("postgresql://u:hunter2@127.0.0.1:1?sslmode=require", format!("{} cannot be read", ca.display())),
    ] {
        std::fs::write(&url, content).unwrap();
        let said = failed(&by_file).await;
        assert!(said.starts_with(&what) && !said.contains("hunter2"), "{said}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_what_is_read_is_shown_so_that_it_is_read_again(text in "\\PC*") {
        let url = format!("postgresql://{text}");
        let _ = DatabaseUrl::parse(&text);
        if let Ok(read) = DatabaseUrl::parse(&url) {
            prop_assert_eq!(DatabaseUrl::parse(&read.to_string()).unwrap().to_string(), read.to_string());
        }
    }

    #[test]
    fn a_password_shows_nowhere_however_it_is_written(
        password in "[ -~é]{0,6}Hunter2[ -~é]{0,6}",
        encoded in any::<bool>(),
        by_parameter in any::<bool>(),
        more in prop::sample::select(vec!["", "/d", "/d?sslmode=no", "?x=y", ":99999", "/a/b", ",?port=1,2,3"]),
    ) {
        let written = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC).to_string();
        let written = if encoded { written } else { password.clone() };
        let before_it = if more.contains('?') { '&' } else { '?' };
        let url = if by_parameter {
            format!("postgresql://u@h{more}{before_it}password={written}")
        } else {
            format!("postgresql://u:{written}@h{more}")
        };
        let said = match DatabaseUrl::parse(&url) {
            Ok(read) => {
                let settings = DatabaseSettings {
                    url: UrlSource::Given(read.clone()),
                    password_file: None,
                    ca_file: None,
                    lease: DatabaseSettings::DEFAULT_LEASE,
                };
                format!("{read} {read:?} {settings:?} {:?} {:?}", read.weakness(false), Connector::new(settings.clone()))
            }
            Err(what) => what,
        };
        let in_force = match config::parse(&format!("database: {{url: '{}'}}", url.replace('\'', "''"))) {
            Ok(config) => format!("{config} {config:?}"),
            Err(problems) => format!("{problems} {problems:?}"),
        };
        let said = said + &in_force;
        // A password that is a parameter and not encoded may end in an ampersand, behind which another one begins.
        let ends = !encoded && by_parameter && password.contains(['&', '#']);
        prop_assert!(ends || !said.contains("Hunter2"), "{}: {}", url, said);
    }
}
