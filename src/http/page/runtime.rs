//! The page of the process: its version, its flags and the configuration in force.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use super::html::{Escaped, Time};
use super::layout::{Icon, Layout, SiteInfo, View};
use crate::config::Config;

/// How many watches and agents of the configuration are shown. There may be very many.
const MAX_SHOWN: usize = 100;

/// What the page of the process is made from.
pub(in crate::http) struct RuntimePage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    pub(in crate::http) config: &'a Config,
    /// The flags in force with their values, which are empty for those that take none.
    pub(in crate::http) flags: &'a [(&'static str, String)],
    /// Where the server listens.
    pub(in crate::http) addresses: &'a [SocketAddr],
    /// Whether it serves with TLS.
    pub(in crate::http) is_encrypted: bool,
    /// Why the exporter should be restarted; `None` while it is healthy.
    pub(in crate::http) unhealthy: Option<&'static str>,
    /// Why it is not ready; `None` if it is.
    pub(in crate::http) not_ready: Option<&'static str>,
}

// === impl RuntimePage ===

impl RuntimePage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let icon = if self.unhealthy.is_none() { Icon::Well } else { Icon::Trouble };
        let layout = Layout {
            site: self.site,
            title: "Runtime",
            view: View::Runtime,
            depth: 0,
            style: Some("views.css"),
            icon,
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            self.write_health(page)?;
            page.push_str("<div class=\"grid\">\n");
            self.write_build(page)?;
            self.write_flags(page)?;
            page.push_str("</div>\n");
            self.write_configuration(page)
        })
    }

    fn write_health(&self, page: &mut String) -> fmt::Result {
        let (class, sentence) = match (self.unhealthy, self.not_ready) {
            (Some(why), _) => ("bad", format!("This exporter has to be restarted: {why}.")),
            (None, Some(why)) => ("warn", format!("This exporter is healthy, but not ready: {why}.")),
            (None, None) => ("good", "This exporter is healthy and ready.".to_owned()),
        };
        writeln!(
            page,
            "<div id=\"summary\" role=\"status\"><h1 class=\"banner {class}\">{}</h1></div>",
            Escaped(sentence)
        )
    }

    fn write_build(&self, page: &mut String) -> fmt::Result {
        let [version, revision, rustc] = crate::BUILD;
        writeln!(
            page,
            "<section class=\"card\" aria-labelledby=\"process-title\">\n<h2 id=\"process-title\">Process</h2>\n\
             <dl class=\"facts\">\n<dt>Version</dt><dd>{version}</dd>\n<dt>Revision</dt><dd><code>{revision}</code></dd>\n\
             <dt>Compiler</dt><dd>rustc {rustc}</dd>\n<dt>Started</dt><dd>{}</dd>\n<dt>Process id</dt><dd>{}</dd>",
            Time(self.site.started_at),
            std::process::id(),
        )?;
        if !self.addresses.is_empty() {
            let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
            let with = if self.is_encrypted { "with TLS" } else { "without TLS" };
            writeln!(page, "<dt>Listens at</dt><dd>{} {with}</dd>", addresses.join(", "))?;
        }
        if let Some(url) = &self.config.external_url {
            writeln!(page, "<dt>People reach it at</dt><dd>{}</dd>", Escaped(url))?;
        }
        page.push_str("</dl>\n</section>\n");
        Ok(())
    }

    fn write_flags(&self, page: &mut String) -> fmt::Result {
        if self.flags.is_empty() {
            return Ok(());
        }
        page.push_str(
            "<section class=\"card\" aria-labelledby=\"flags-title\">\n<h2 id=\"flags-title\">Flags in force</h2>\n<dl class=\"facts flags\">\n",
        );
        for (flag, value) in self.flags {
            let value = if value.is_empty() { "set" } else { value };
            writeln!(page, "<dt><code>{flag}</code></dt><dd><code>{}</code></dd>", Escaped(value))?;
        }
        page.push_str("</dl>\n</section>\n");
        Ok(())
    }

    /// Writes the configuration in force as `/config` shows it, except that long lists are cut.
    fn write_configuration(&self, page: &mut String) -> fmt::Result {
        let mut config = self.config.clone();
        let cut = config.watches.len().saturating_sub(MAX_SHOWN) + config.agents.len().saturating_sub(MAX_SHOWN);
        config.watches.truncate(MAX_SHOWN);
        config.agents.truncate(MAX_SHOWN);
        page.push_str(
            "<section class=\"card\" id=\"in-force\" aria-labelledby=\"in-force-title\">\n\
             <h2 id=\"in-force-title\">Configuration in force</h2>\n<p>Defaults and what was set by variables are included. Secrets are hidden.",
        );
        if cut > 0 {
            write!(page, " {cut} toggles and agents are left out: see <a href=\"config\">all of it</a>.")?;
        }
        writeln!(page, "</p>\n<pre tabindex=\"0\" aria-label=\"Configuration\">{}</pre>\n</section>", Escaped(&config))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::toggle::sample::at;

    fn rendered(config: &str, unhealthy: Option<&'static str>, not_ready: Option<&'static str>) -> String {
        let config = crate::config::parse(config).unwrap();
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: false, started_at: at(0), now: at(9) };
        let flags = [("--config.file", "/etc/<c>.yaml".to_owned()), ("--demo", String::new())];
        let addresses = ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let (flags, addresses) = (&flags, &addresses);
        RuntimePage { site, config: &config, flags, addresses, is_encrypted: true, unhealthy, not_ready }.render()
    }

    #[test]
    fn the_process_is_described_without_secrets() {
        let page = rendered("apis: {default: {base_url: 'http://h', api_key: very-secret}}", None, None);
        for text in [
            "This exporter is healthy and ready.",
            env!("CARGO_PKG_VERSION"),
            "<dt><code>--config.file</code></dt><dd><code>/etc/&lt;c&gt;.yaml</code></dd>",
            "<dt><code>--demo</code></dt><dd><code>set</code></dd>",
            "127.0.0.1:1, [::1]:1 with TLS",
            "api_key: &lt;secret&gt;",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("very-secret") && !page.contains("left out"));
    }

    #[test]
    fn what_is_wrong_comes_first_and_long_lists_are_cut() {
        assert!(rendered("watches: []", Some("it hangs"), Some("draining")).contains("has to be restarted: it hangs."));
        assert!(rendered("watches: []", None, Some("draining")).contains("healthy, but not ready: draining."));
        let mut config = "apis: {default: {base_url: 'http://h', api_key: k}}\nwatches:\n".to_owned();
        (0..103).for_each(|i| writeln!(config, "- {{name: w{i}, agent_id: 1, progress_id: p}}").unwrap());
        let page = rendered(&config, None, None);
        assert!(page.contains("3 toggles and agents are left out") && page.contains("name: w99\n"), "{page}");
        assert!(!page.contains("name: w100\n"));
    }
}
