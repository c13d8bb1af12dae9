//! Applying the listings of agents.

use std::collections::BTreeMap;

use super::{Intake, events};
use crate::cekura::Api;
use crate::poller::AgentListing;
use crate::sources::{AgentOrigin, DiscoveredAgents, EditResult, ListedAgents};
use crate::toggle::ApiName;

impl Intake {
    /// Goes on asking the agents that an earlier process or another replica asked, of those of these APIs that have not
    /// listed their agents yet. If they cannot, what is wrong with the agents still shows.
    pub(super) fn restore_discoveries(&mut self, apis: &[Api], asked_before: BTreeMap<ApiName, ListedAgents>) {
        for (api, asked) in asked_before {
            if !self.has_listed(&api) && apis.iter().any(|of| of.name == api && of.discover_agents) {
                let discovered = DiscoveredAgents::restored(asked);
                self.agents.replace(AgentOrigin::Discovered(api.clone()), discovered.definitions(&api));
                self.discovered.insert(api, discovered);
            }
        }
    }

    /// Whether an API has listed its agents.
    pub(super) fn has_listed(&self, api: &ApiName) -> bool {
        self.discovered.get(api).is_some_and(DiscoveredAgents::is_listed)
    }

    /// Applies a listing. One that failed changes nothing.
    pub(super) async fn apply_listing(&mut self, listing: AgentListing) {
        let AgentListing { api, found } = listing;
        if !self.config.apis.iter().any(|of| of.name == api && of.discover_agents) {
            return;
        }
        match found {
            Ok(found) => {
                if self.listing_errors.remove(&api).is_some() {
                    events::listing_recovered(&api);
                }
                let discovered = self.discovered.entry(api.clone()).or_default();
                discovered.update(&found);
                self.agents.replace(AgentOrigin::Discovered(api.clone()), discovered.definitions(&api));
                self.publish(EditResult::default(), None).await;
                self.context.metrics.set_discovery(&api, Some(true));
                self.report_listing(&api, None);
            }
            Err(failure) => {
                self.context.metrics.set_discovery(&api, Some(false));
                self.report_listing(&api, Some(&failure));
                let is_new = self.listing_errors.insert(api.clone(), failure.reason) != Some(failure.reason);
                if is_new {
                    events::listing_failed(&api, &failure);
                }
            }
        }
    }

    /// Forgets the discovered agents of all APIs but those of these that are to discover agents.
    pub(super) fn forget_discoveries(&mut self, apis: &[Api]) {
        let discovers = |name: &ApiName| apis.iter().any(|api| api.name == *name && api.discover_agents);
        let known = self.discovered.keys().chain(self.listing_errors.keys());
        let ended: Vec<_> = known.filter(|api| !discovers(api)).cloned().collect();
        for api in ended {
            self.discovered.remove(&api);
            self.listing_errors.remove(&api);
            self.agents.replace(AgentOrigin::Discovered(api.clone()), Vec::new());
            self.context.metrics.set_discovery(&api, None);
            self.report_no_listing(&api);
        }
    }
}
