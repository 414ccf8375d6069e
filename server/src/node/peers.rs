//! The other regions: who they are, how they are reached, and their rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tributary_planner::parse::Parsed;
use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use super::{Node, NodeSettings};
use crate::far::forward::{Errand, ForwardReply};
use crate::far::owner::{self, Answer};
use crate::far::request::Request;
use crate::far::{FarError, FarReads, FarRows, Opened};
use crate::links::{PeerClient, PeerTls};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::session::Session;

/// How long a statement of another region waits here for a region that is behind. Nobody can cancel it, and who asked
/// gives up later than this: so it hears that nothing was written.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// How often a statement is sent, with pauses: its token makes that harmless.
const FORWARD_ATTEMPTS: u32 = 4;
/// How long a region may take to hear of the catalog that a statement for it was written by.
const CATALOG_MAX: Duration = Duration::from_secs(5);
const FORWARD_PAUSE: Duration = Duration::from_millis(300);

/// Everything that is known of how to reach other regions: from flags, and from the catalog.
pub struct Peers {
    region: String,
    primary: String,
    configured: BTreeMap<String, PeerClient>,
    /// Members that the catalog alone says how to reach.
    found: Mutex<BTreeMap<String, PeerClient>>,
    tls: Option<PeerTls>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Peers {
    pub(super) fn new(settings: &NodeSettings, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            region: settings.region.clone(),
            primary: settings.primary.clone(),
            configured: settings.clients.clone(),
            found: Mutex::default(),
            tls: settings.tls.clone(),
            snapshots,
        }
    }

    /// The region that serializes DDL: as the catalog says, and before there is one as the flags do.
    pub fn primary(&self) -> String {
        let catalog = &self.snapshots.borrow().catalog;
        let named = catalog.primary.and_then(|primary| catalog.region_name(primary));
        named.unwrap_or(&self.primary).to_owned()
    }

    /// How to reach another region: as configured, or else where the catalog says.
    pub fn client(&self, region: &str) -> Option<PeerClient> {
        if let Some(client) = self.configured.get(region) {
            return Some(client.clone());
        }
        let catalog = self.snapshots.borrow().catalog.clone();
        let id = catalog.region_named(region)?;
        let address = catalog.regions[&id].address.as_deref()?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = found.get(region).filter(|client| client.address() == address) {
            return Some(client.clone());
        }
        let client = PeerClient::new(region, address, self.tls.clone()).ok()?;
        found.insert(region.to_owned(), client.clone());
        Some(client)
    }

    /// Whether a region of this name may connect: it is configured, a member, or one that was dropped and has to be
    /// told.
    pub fn admits(&self, region: &str) -> bool {
        let is_known = || {
            let catalog = &self.snapshots.borrow().catalog;
            catalog.regions.values().any(|def| def.name == region)
        };
        region != self.region && (self.configured.contains_key(region) || is_known())
    }

    /// Whether a region of this name may ask for rows, and have statements carried out: it is a member now.
    pub fn may_ask(&self, region: &str) -> bool {
        let catalog = &self.snapshots.borrow().catalog;
        let is_member = || catalog.members().any(|(_, def)| def.name == region);
        match catalog.cluster {
            Some(_) => region != self.region && is_member(),
            None => self.admits(region),
        }
    }

    /// Whether peers prove their names by certificates.
    pub fn are_secure(&self) -> bool {
        self.tls.is_some()
    }
}

#[async_trait]
impl FarReads for Peers {
    async fn open(&self, region: &str, request: &Request) -> Result<FarRows, FarError> {
        let unreachable = |reason: &str| FarError::Unreachable {
            region: region.to_owned(),
            reason: reason.to_owned(),
        };
        let client = self.client(region);
        let client =
            client.ok_or_else(|| unreachable("this region was not told where it is: give its --peer"))?;
        client.scan(region, request).await
    }

    /// Sends it until there is an answer, or no sense in going on.
    async fn forward(&self, region: &str, errand: &Errand) -> Result<ForwardReply, FarError> {
        let Some(client) = self.client(region) else {
            return Err(FarError::Unreachable {
                region: region.to_owned(),
                reason: "this region was not told where it is: give its --peer".to_owned(),
            });
        };
        let mut may_be_in = false;
        let mut attempt = 1;
        loop {
            let error = match client.forward(errand).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            may_be_in |= error.was_asked();
            if error.is_final() || attempt == FORWARD_ATTEMPTS {
                let (region, reason) = (region.to_owned(), error.to_string());
                return Err(match may_be_in {
                    true => FarError::Unknown { region, reason },
                    false => FarError::Unreachable { region, reason },
                });
            }
            attempt += 1;
            tokio::time::sleep(FORWARD_PAUSE).await;
        }
    }

    fn is_resident(&self, table: ObjectId) -> bool {
        // How one that was dropped meanwhile was protected is not known any more.
        let catalog = &self.snapshots.borrow().catalog;
        catalog.table(table).is_none() || catalog.is_resident(table)
    }
}

impl Node {
    /// Carries out a statement for another region, once, however often it comes. `room` is what its bytes take of what
    /// such statements may take together; it is given back when the statement is done, whoever still waits for it.
    pub(crate) async fn answer_errand(
        self: &Arc<Self>,
        errand: Errand,
        room: OwnedSemaphorePermit,
    ) -> ForwardReply {
        let id = (errand.statement().from.clone(), errand.statement().token);
        let node = Arc::clone(self);
        let run = || async move {
            let _room = room;
            match node.begin_errand(&errand).await {
                Ok((mut session, parsed)) => session.carry_out(&parsed, &errand).await,
                Err(error) => ForwardReply::Refused(error.into()),
            }
        };
        self.forwarded.carry_out(id, run).await
    }

    /// The session of a statement of another region, once this one knows the catalog by which it was written.
    async fn begin_errand(self: Arc<Self>, errand: &Errand) -> SqlResult<(Session, Parsed)> {
        let (mut session, parsed) = Session::of_errand(Arc::clone(&self) as _, errand)?;
        let version = errand.statement().catalog_version;
        let knows = |snapshot: &Snapshot| snapshot.catalog.version >= version;
        if !matches!(self.wait_until(CATALOG_MAX, knows).await, Ok(Some(_))) {
            let message = "the region has not heard of what was created elsewhere yet";
            return Err(SqlError::new(sqlstate::CANNOT_CONNECT_NOW, message).hint("run the statement again"));
        }
        session.wait_at_most(BEHIND_MAX);
        Ok((session, parsed))
    }

    /// Begins to answer another region from own rows.
    pub(crate) fn open_scan(&self, request: &Request) -> Result<Answer, Opened> {
        owner::answer(&self.versions, &self.newest(), request)
    }
}

#[cfg(test)]
mod tests {
    use tributary_planner::catalog::PlanSettings;

    use super::*;
    use crate::session::backend::Backend;
    use crate::session::memory_backend::MemoryBackend;

    #[tokio::test]
    async fn a_region_is_dialled_where_the_catalog_says_by_now() {
        let backend = MemoryBackend::new(&[]);
        let (published, snapshots) = watch::channel(backend.snapshot());
        let peers = Peers {
            region: "here".to_owned(),
            primary: "here".to_owned(),
            configured: BTreeMap::new(),
            found: Mutex::default(),
            tls: None,
            snapshots,
        };
        let address = || peers.client("br").map(|client| client.address().to_owned());
        assert_eq!(address(), None);
        for place in ["br.example:1", "br.example:2"] {
            let sql = format!("ALTER DATABASE tributary ADD REGION br WITH (address = '{place}')");
            backend
                .ddl(sql, PlanSettings::default())
                .await
                .expect("it is added");
            published.send_replace(backend.snapshot());
            assert_eq!(address().as_deref(), Some(place));
            assert_eq!(address().as_deref(), Some(place), "the one that was kept");
        }
        let sql = "ALTER DATABASE tributary DROP REGION br FORCE".to_owned();
        backend
            .ddl(sql, PlanSettings::default())
            .await
            .expect("it is dropped");
        published.send_replace(backend.snapshot());
        assert_eq!(address(), None, "it is no member");
    }
}
