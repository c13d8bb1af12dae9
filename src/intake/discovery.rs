//! Applying the listings of agents.

use super::{Intake, events};
use crate::cekura::Api;
use crate::poller::AgentListing;
use crate::sources::{AgentOrigin, DiscoveredAgents, EditResult};
use crate::toggle::ApiName;

impl Intake {
    /// Goes on asking the agents that an earlier process asked, until the API lists its agents. If it cannot, what is
    /// wrong with them still shows.
    pub(super) fn restore_discoveries(&mut self, apis: &[Api]) {
        for (api, asked) in std::mem::take(&mut self.context.asked_before) {
            if apis.iter().any(|of| of.name == api && of.discover_agents) {
                let discovered = DiscoveredAgents::restored(asked);
                self.agents.replace(AgentOrigin::Discovered(api.clone()), discovered.definitions(&api));
                self.discovered.insert(api, discovered);
            }
        }
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
            }
            Err(failure) => {
                self.context.metrics.set_discovery(&api, Some(false));
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
        }
    }
}
