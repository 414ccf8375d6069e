//! Files of a cluster's events: a directory per region, and one in which the files of all regions take turns.
//!
//! ```text
//!   us/events-00000   eu/events-00000   ap/events-00000   us/events-00001 …
//!         └──────────────────┴── all/events-00000-ap, all/events-00000-eu, all/events-00000-us, all/events-00001-ap …
//! ```
//! A file is as long as a batch of the source, so the one region with all events sees time go on about evenly.

use std::fs;
use std::path::{Path, PathBuf};

use crate::prepare::cache;
use crate::{Result, Setting, generate};

/// Where the events of all regions are.
const ALL: &str = "all";

/// Patterns of paths.
pub struct Files {
    /// For the source of the cluster: `{region}` stands for the region's name.
    pub by_region: PathBuf,
    /// For the source of one region with everything.
    pub all: PathBuf,
}

/// How many of the events are the region's of this number.
pub fn share(events: u64, regions: usize, number: usize) -> u64 {
    let (regions, number) = (regions as u64, number as u64);
    events / regions + u64::from(number < events % regions)
}

/// The files with so many events in all, which are made if they are not there.
pub fn files(setting: &Setting, events: u64, regions: &[&str]) -> Result<Files> {
    let format = &setting.format;
    let directory = cache(setting).join(format!("{events}-{format}-{}-regions", regions.len()));
    let complete = directory.join("complete");
    if !complete.is_file() {
        println!(
            "making {events} events for {} regions in {}",
            regions.len(),
            directory.display()
        );
        make(&directory, format, events, regions)?;
        fs::write(&complete, "").map_err(|error| error.to_string())?;
    }
    let name = format!("events-*.{format}");
    Ok(Files {
        by_region: directory.join("{region}").join(&name),
        all: directory.join(ALL).join(&name),
    })
}

fn make(directory: &Path, format: &str, events: u64, regions: &[&str]) -> Result<()> {
    let fail = |error: std::io::Error| format!("{}: {error}", directory.display());
    let all = directory.join(ALL);
    if all.is_dir() {
        fs::remove_dir_all(&all).map_err(fail)?;
    }
    fs::create_dir_all(&all).map_err(fail)?;
    for (number, region) in regions.iter().enumerate() {
        let own = directory.join(region);
        let stream = generate::Stream::of_region(format, number);
        stream.write(share(events, regions.len(), number), &own)?;
        for entry in fs::read_dir(&own).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            fs::hard_link(&path, all.join(format!("{stem}-{region}.{format}"))).map_err(fail)?;
        }
    }
    Ok(())
}
