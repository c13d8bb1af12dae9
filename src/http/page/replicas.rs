//! The page of the replicas: which there are, and which of them polls how much.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::{Escaped, Time, count_of};
use super::layout::{Icon, Layout, SiteInfo, View};
use super::toggle_rows::{begin_cell, write_text};
use crate::board::{AgentRow, ToggleRows};
use crate::config::format_duration;
use crate::replicas::ReplicaReport;
use crate::toggle::{AgentId, ApiName, Shard, ShardOwners};

/// What the page of the replicas is made from.
pub(in crate::http) struct ReplicasPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    /// The id of this replica.
    pub(in crate::http) id: &'a str,
    /// How long it keeps its shards after it last renewed its lease.
    pub(in crate::http) lease: Duration,
    pub(in crate::http) report: &'a ReplicaReport,
    /// Who owns what, as the database last said.
    pub(in crate::http) owners: Option<&'a ShardOwners>,
    pub(in crate::http) rows: &'a ToggleRows,
    pub(in crate::http) agents: &'a [AgentRow],
}

/// How much a replica polls.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct ReplicaShare {
    is_member: bool,
    shards: usize,
    toggles: usize,
    agents: usize,
}

// === impl ReplicasPage ===

impl ReplicasPage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let icon = if self.report.problem.is_none() { Icon::Well } else { Icon::Trouble };
        let layout = Layout {
            site: self.site,
            title: "Replicas",
            view: View::Replicas,
            depth: 0,
            style: Some("views.css"),
            icon,
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            self.write_answer(page)?;
            page.push_str("<dl class=\"facts\">\n");
            writeln!(page, "<dt>This replica</dt><dd><b>{}</b></dd>", Escaped(self.id))?;
            writeln!(page, "<dt>Lease</dt><dd>{}</dd>", format_duration(self.lease))?;
            let taken = count_of(self.report.takeovers as u64, "shard");
            writeln!(page, "<dt>Took over</dt><dd>{taken} of replicas that are gone, since its start</dd>\n</dl>")?;
            self.write_table(page)
        })
    }

    /// Writes whether the database can be used, and how many replicas there are.
    fn write_answer(&self, page: &mut String) -> fmt::Result {
        let members = count_of(self.report.members.len() as u64, "replica");
        let (class, sentence) = match &self.report.problem {
            Some(_) => ("bad", "The database cannot be used.".to_owned()),
            None if !self.report.was_reached => ("warn", "The database has not been reached yet.".to_owned()),
            None => ("good", format!("{members}, and the database can be used.")),
        };
        writeln!(page, "<div id=\"summary\" role=\"status\"><h1 class=\"banner {class}\">{sentence}</h1></div>")?;
        let Some((why, since)) = &self.report.problem else { return Ok(()) };
        writeln!(
            page,
            "<p class=\"sentence\">Since {}, this replica has gone on with what it knows. It refuses registrations.</p>",
            Time(since.shown())
        )?;
        write_text(page, why)?;
        writeln!(page, "<p><a class=\"button\" href=\"runbooks#cekuradatabasedown\">What to do</a></p>")
    }

    fn write_table(&self, page: &mut String) -> fmt::Result {
        page.push_str(
            "<h2 id=\"shares\">Who polls what</h2>\n\
             <p>Agents and their toggles are divided into 64 shards, each of which one replica polls.</p>\n\
             <table class=\"cards\" id=\"replicas\" role=\"table\" aria-labelledby=\"shares\">\n\
             <thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Replica</th>\
             <th role=\"columnheader\" scope=\"col\">Lease</th><th role=\"columnheader\" scope=\"col\">Shards</th>\
             <th role=\"columnheader\" scope=\"col\">Toggles</th><th role=\"columnheader\" scope=\"col\">Agents</th></tr></thead>\n\
             <tbody role=\"rowgroup\">\n",
        );
        for (replica, share) in self.shares() {
            self.write_share(page, replica, share)?;
        }
        page.push_str("</tbody>\n</table>\n");
        Ok(())
    }

    /// Writes the share of a replica, or of nobody.
    fn write_share(&self, page: &mut String, replica: Option<&str>, share: ReplicaShare) -> fmt::Result {
        let name = Escaped(replica.unwrap_or("nobody"));
        write!(
            page,
            "<tr role=\"row\" data-key=\"{name}\"><th role=\"rowheader\" scope=\"row\" data-of=\"Replica\">{name}"
        )?;
        if replica == Some(self.id) {
            page.push_str("<span class=\"more\">this one</span>");
        }
        page.push_str("</th>");
        begin_cell(page, "Lease")?;
        let (class, symbol, word) = match replica {
            None => ("down", "✖", "not polled"),
            Some(_) if share.is_member => ("up", "✔", "valid"),
            Some(_) => ("failing", "△", "expired"),
        };
        write!(page, "<span class=\"badge {class}\"><span aria-hidden=\"true\">{symbol}</span> {word}</span></td>")?;
        for (column, count) in [("Shards", share.shards), ("Toggles", share.toggles), ("Agents", share.agents)] {
            begin_cell(page, column)?;
            write!(page, "{count}</td>")?;
        }
        page.push_str("</tr>\n");
        Ok(())
    }

    /// The share of each replica and, if there is anything that none polls, of nobody.
    fn shares(&self) -> BTreeMap<Option<&str>, ReplicaShare> {
        let mut shares: BTreeMap<Option<&str>, ReplicaShare> = BTreeMap::new();
        for member in &self.report.members {
            shares.entry(Some(member)).or_default().is_member = true;
        }
        let nobody = vec![None; usize::from(Shard::COUNT)];
        for owner in self.owners.map_or(nobody, |owners| owners.of_shards().collect()) {
            shares.entry(owner).or_default().shards += 1;
        }
        let owner = |api: &ApiName, agent: AgentId| self.owners.and_then(|owners| owners.of(api, agent));
        for row in self.rows.iter() {
            let watch = &row.toggle.watch;
            shares.entry(owner(&watch.api, watch.agent_id)).or_default().toggles += 1;
        }
        for agent in self.agents.iter().filter(|agent| agent.asked.is_some()) {
            shares.entry(owner(&agent.api, agent.id)).or_default().agents += 1;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::board::ToggleRow;
    use crate::clock::ProcessTime;
    use crate::toggle::Toggle;
    use crate::toggle::sample::{at, watch};

    fn rendered(report: &ReplicaReport, owners: Option<&ShardOwners>) -> String {
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: true, started_at: at(0), now: at(9) };
        let rows: ToggleRows = [ToggleRow::new(Toggle::new(Arc::new(watch("w", "p")), at(0)))].into_iter().collect();
        let lease = Duration::from_secs(15);
        ReplicasPage { site, id: "a", lease, report, owners, rows: &rows, agents: &[] }.render()
    }

    /// The cells of the row of a replica.
    fn cells(page: &str, replica: &str) -> Vec<String> {
        let (_, row) = page.split_once(&format!("data-key=\"{replica}\"")).unwrap();
        let row = row.split("</tr>").next().unwrap();
        row.split("data-of=\"").skip(1).map(|cell| cell.split_once("\">").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn each_replica_has_its_shards_and_toggles_and_what_nobody_polls_is_shown() {
        let report = ReplicaReport { members: vec!["a".into(), "b".into()], was_reached: true, ..Default::default() };
        let owner = |shard: Shard| match shard.number() {
            0..32 => Some((shard, Arc::from("a"))),
            32..60 => Some((shard, Arc::from("c"))),
            _ => None,
        };
        let owners: ShardOwners = Shard::all().filter_map(owner).collect();
        let page = rendered(&report, Some(&owners));
        assert!(page.contains("2 replicas, and the database can be used."), "{page}");
        assert!(cells(&page, "a")[0].contains("this one") && cells(&page, "a")[1].contains("valid"));
        assert!(cells(&page, "a")[2].starts_with("32<") && cells(&page, "b")[2].starts_with("0<"));
        assert!(cells(&page, "c")[1].contains("expired") && cells(&page, "c")[2].starts_with("28<"));
        assert!(cells(&page, "nobody")[1].contains("not polled") && cells(&page, "nobody")[2].starts_with("4<"));
        let toggles = ["a", "b", "c", "nobody"].map(|replica| cells(&page, replica)[3].starts_with("1<"));
        assert_eq!(toggles.into_iter().filter(|has| *has).count(), 1);
    }

    #[test]
    fn a_database_that_cannot_be_used_comes_first_with_the_reason() {
        let problem = Some(("the database is <away>".to_owned(), ProcessTime::now()));
        let page = rendered(&ReplicaReport { problem, was_reached: true, ..Default::default() }, None);
        assert!(page.contains("The database cannot be used.") && page.contains("the database is &lt;away&gt;"));
        assert!(page.contains("runbooks#cekuradatabasedown"));
        assert!(cells(&page, "nobody")[2].starts_with("64<"));
        let page = rendered(&ReplicaReport::default(), None);
        assert!(page.contains("The database has not been reached yet."));
    }
}
