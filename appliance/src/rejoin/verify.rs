//! Whether the host is back: Ready, in a boot that is not the old one, with the version that was promised.

use super::{Progress, Rejoin, StepError, identity, stop};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

/// Whether the cluster says that the Node is Ready.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

impl Rejoin<'_> {
    /// Looks whether the host has joined; `kubelet` is the version that its image promised.
    ///
    /// # Errors
    /// The cluster, the record; or what came back is not what was written onto the disk.
    pub async fn verify(&mut self, kubelet: Option<&str>) -> Result<Progress, StepError> {
        let content = self.record.content();
        if !content.removed {
            return Err(stop("the old identity is not removed: whatever is Ready may be the old Node"));
        }
        let Some(node) = self.node().await? else {
            return Ok(Progress::NotYet("there is no Node of this name".to_owned()));
        };
        let name = &content.node;
        let found = identity::identity(&node);
        if content.new.as_ref().is_some_and(|new| new.uid == found.uid) && is_ready(&node) {
            return Ok(Progress::AlreadySo);
        }
        if let Some(old) = &content.old {
            if !old.boot_id.is_empty() && old.boot_id == found.boot_id {
                return Err(stop(format!(
                    "{name} is back in the boot that it ran before ({}): it was never off, and its disk not rewritten; stop, \
                     and look at the machine",
                    found.boot_id
                )));
            }
            if old.uid == found.uid {
                return Err(stop(format!("the Node {name} is the old one (UID {}): it was not removed", old.uid)));
            }
        }
        if !is_ready(&node) {
            return Ok(Progress::NotYet(format!("Node {name} is not Ready yet")));
        }
        if found.boot_id.is_empty() {
            return Ok(Progress::NotYet(format!("Node {name} does not tell its boot yet")));
        }
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let runs = info.map(|info| info.kubelet_version.clone()).unwrap_or_default();
        if let Some(wanted) = kubelet.filter(|wanted| *wanted != runs) {
            return Err(stop(format!(
                "{name} came back with kubelet {runs}, and its image promised {wanted}: another disk was booted; look at the \
                 boot order"
            )));
        }
        debug_assert_eq!(node.uid().as_deref(), Some(found.uid.as_str()));
        self.record.change(|content| content.new = Some(found))?;
        Ok(Progress::Done)
    }
}
