//! Catalogs as an earlier version wrote them: logs and checkpoints hold them for as long as they live.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tributary_storage::{ObjectId, RegionId};

use super::{Catalog, Object, RegionDef, TableOptions};
use crate::error::PlanError;

/// How a catalog of format 2 begins.
const MAGIC_2: [u8; 4] = *b"TCT\x02";
/// How a catalog of format 3 begins: one without options of tables.
const MAGIC_3: [u8; 4] = *b"TCT\x03";
/// How a catalog of format 4 begins: one without options of regions.
const MAGIC_4: [u8; 4] = *b"TCT\x04";

#[derive(Deserialize)]
struct Catalog4 {
    version: u64,
    cluster: Option<[u8; 16]>,
    primary: Option<RegionId>,
    regions: BTreeMap<RegionId, RegionDef>,
    objects: BTreeMap<ObjectId, Arc<Object>>,
    next_object: u32,
    truncated: BTreeMap<ObjectId, u64>,
    options: BTreeMap<ObjectId, TableOptions>,
}

#[derive(Deserialize)]
struct Catalog3 {
    version: u64,
    cluster: Option<[u8; 16]>,
    primary: Option<RegionId>,
    regions: BTreeMap<RegionId, RegionDef>,
    objects: BTreeMap<ObjectId, Arc<Object>>,
    next_object: u32,
    truncated: BTreeMap<ObjectId, u64>,
}

#[derive(Deserialize)]
struct Catalog2 {
    version: u64,
    cluster: Option<[u8; 16]>,
    primary: Option<RegionId>,
    regions: BTreeMap<RegionId, Region2>,
    objects: BTreeMap<ObjectId, Arc<Object>>,
    next_object: u32,
}

#[derive(Deserialize)]
struct Region2 {
    name: String,
    incarnation: u32,
}

/// The catalog, if the bytes are of an earlier format.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Catalog, PlanError>> {
    let damaged = |error| PlanError::internal(format!("damaged catalog: {error}"));
    if let Some(body) = bytes.strip_prefix(&MAGIC_4) {
        let read = postcard::from_bytes::<Catalog4>(body);
        return Some(read.map(Catalog::from).map_err(damaged));
    }
    if let Some(body) = bytes.strip_prefix(&MAGIC_3) {
        let read = postcard::from_bytes::<Catalog3>(body);
        return Some(read.map(Catalog::from).map_err(damaged));
    }
    let body = bytes.strip_prefix(&MAGIC_2)?;
    let read = postcard::from_bytes::<Catalog2>(body);
    Some(read.map(Catalog::from).map_err(damaged))
}

impl From<Catalog4> for Catalog {
    fn from(read: Catalog4) -> Self {
        Self {
            version: read.version,
            cluster: read.cluster,
            primary: read.primary,
            regions: read.regions,
            objects: read.objects,
            next_object: read.next_object,
            truncated: read.truncated,
            options: read.options,
            region_options: BTreeMap::new(),
        }
    }
}

impl From<Catalog3> for Catalog {
    fn from(read: Catalog3) -> Self {
        Self {
            version: read.version,
            cluster: read.cluster,
            primary: read.primary,
            regions: read.regions,
            objects: read.objects,
            next_object: read.next_object,
            truncated: read.truncated,
            options: BTreeMap::new(),
            region_options: BTreeMap::new(),
        }
    }
}

impl From<Catalog2> for Catalog {
    fn from(read: Catalog2) -> Self {
        let region = |(id, region): (RegionId, Region2)| {
            let incarnation = region.incarnation;
            let region = RegionDef {
                incarnation,
                ..RegionDef::new(region.name)
            };
            (id, region)
        };
        Self {
            version: read.version,
            cluster: read.cluster,
            primary: read.primary,
            regions: read.regions.into_iter().map(region).collect(),
            objects: read.objects,
            next_object: read.next_object,
            truncated: BTreeMap::new(),
            options: BTreeMap::new(),
            region_options: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_of_format_4_is_read() {
        let regions = BTreeMap::from([(RegionId(1), RegionDef::new("us"))]);
        let objects: BTreeMap<ObjectId, Arc<Object>> = BTreeMap::new();
        let truncated = BTreeMap::from([(ObjectId(9), 3u64)]);
        let table = TableOptions {
            lag_max_ms: Some(700),
            ..TableOptions::default()
        };
        let options = BTreeMap::from([(ObjectId(9), table)]);
        let members = (7u64, Some([5u8; 16]), Some(RegionId(1)), regions);
        let written = (members, objects, 12u32, truncated, options);
        let bytes = postcard::to_extend(&written, MAGIC_4.to_vec()).expect("plain data");
        let catalog = Catalog::from_bytes(&bytes).expect("an earlier format is read");
        assert_eq!((catalog.version, catalog.options(ObjectId(9))), (7, table));
        assert!(catalog.region_options.is_empty());
        assert_eq!(Catalog::from_bytes(&catalog.to_bytes()), Ok(catalog));
        assert!(Catalog::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_catalog_of_format_3_is_read() {
        let regions = BTreeMap::from([(RegionId(1), RegionDef::new("us"))]);
        let objects: BTreeMap<ObjectId, Arc<Object>> = BTreeMap::new();
        let truncated = BTreeMap::from([(ObjectId(9), 3u64)]);
        let written = (
            7u64,
            Some([5u8; 16]),
            Some(RegionId(1)),
            regions,
            objects,
            12u32,
            truncated,
        );
        let bytes = postcard::to_extend(&written, MAGIC_3.to_vec()).expect("plain data");
        let catalog = Catalog::from_bytes(&bytes).expect("an earlier format is read");
        assert_eq!((catalog.version, catalog.truncated[&ObjectId(9)]), (7, 3));
        assert!(catalog.options.is_empty());
        assert_eq!(Catalog::from_bytes(&catalog.to_bytes()), Ok(catalog));
        assert!(Catalog::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_catalog_of_format_2_is_read() {
        let regions = BTreeMap::from([(RegionId(1), ("us".to_owned(), 4u32))]);
        let objects: BTreeMap<ObjectId, Arc<Object>> = BTreeMap::new();
        let written = (7u64, Some([5u8; 16]), Some(RegionId(1)), regions, objects, 12u32);
        let bytes = postcard::to_extend(&written, MAGIC_2.to_vec()).expect("plain data");
        let catalog = Catalog::from_bytes(&bytes).expect("an earlier format is read");
        assert_eq!((catalog.version, catalog.next_object), (7, 12));
        assert_eq!(catalog.regions[&RegionId(1)].incarnation, 4);
        assert!(catalog.regions[&RegionId(1)].is_member());
        assert_eq!(Catalog::from_bytes(&catalog.to_bytes()), Ok(catalog));
        assert!(Catalog::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
