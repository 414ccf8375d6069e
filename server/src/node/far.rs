//! Rows of other regions: asked for by this region's sessions, and given to others'.

use async_trait::async_trait;

use super::Node;
use crate::far::owner::{self, Scan};
use crate::far::{FarError, FarReads, FarRows, Opened, ScanRequest};

#[async_trait]
impl FarReads for Node {
    async fn open(&self, region: &str, request: ScanRequest) -> Result<FarRows, FarError> {
        let unreachable = |reason: &str| FarError::Unreachable {
            region: region.to_owned(),
            reason: reason.to_owned(),
        };
        let client = self.client(region);
        let client =
            client.ok_or_else(|| unreachable("this region was not told where it is: give its --peer"))?;
        client.scan(region, &request).await
    }
}

impl Node {
    /// Begins a scan of own rows for another region.
    pub(crate) fn open_scan(&self, request: &ScanRequest) -> Result<Scan, Opened> {
        owner::open(&self.versions, &self.newest(), request)
    }

    /// How many versions of own tables are kept for others.
    pub fn versions_kept(&self) -> usize {
        self.versions.len()
    }
}
