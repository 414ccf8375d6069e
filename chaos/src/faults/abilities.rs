//! What this machine permits: tried, not guessed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::disk::SmallDisk;
use super::strace;
use crate::error::ChaosError;
use crate::network::Packets;

/// What some faults need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Faults of system calls, by attaching `strace` to a process.
    Strace,
    /// A small disk of its own, by mounting a tmpfs.
    Mount,
    /// Network namespaces with interfaces whose packets this process carries.
    Packets,
}

impl Ability {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Ability::Strace => "faults of fsync (strace)",
            Ability::Mount => "a full disk (mounting a tmpfs)",
            Ability::Packets => "packets (network namespaces and /dev/net/tun)",
        }
    }
}

/// Of each ability that is missing, why.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    missing: BTreeMap<Ability, String>,
}

impl Abilities {
    /// Tries all of them, in a directory that may be written.
    pub async fn find(directory: &Path) -> Abilities {
        let mut abilities = Abilities::default();
        if let Err(why) = try_strace(directory).await {
            abilities.lack(Ability::Strace, &why);
        }
        let disk = SmallDisk::mount(&directory.join("mount-trial")).await;
        if let Err(why) = &disk {
            abilities.lack(Ability::Mount, &why.to_string());
        }
        drop(disk);
        let _ = std::fs::remove_dir(directory.join("mount-trial"));
        if let Err(why) = Packets::start(0).await {
            abilities.lack(Ability::Packets, &why.to_string());
        }
        abilities
    }

    /// Says that an ability is not to be used, and why.
    pub fn without(mut self, ability: Ability, why: &str) -> Abilities {
        self.lack(ability, why);
        self
    }

    /// Tools say more than one line; the first tells why.
    fn lack(&mut self, ability: Ability, why: &str) {
        let first = why.lines().next().unwrap_or_default();
        self.missing.entry(ability).or_insert_with(|| first.to_owned());
    }

    /// Whether it is there.
    pub fn has(&self, ability: Ability) -> bool {
        !self.missing.contains_key(&ability)
    }

    /// What is missing, and why.
    pub fn missing(&self) -> &BTreeMap<Ability, String> {
        &self.missing
    }
}

async fn try_strace(directory: &Path) -> Result<(), String> {
    let mut sleeper = tokio::process::Command::new("sleep")
        .arg("10")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("sleep: {error}"))?;
    let pid = sleeper.id().unwrap_or(0);
    let output = directory.join("strace-trial.txt");
    let mut tracer = strace::attach(pid, "error=EIO", 1, &output)
        .map_err(|error| format!("strace cannot be run: {error}"))?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = tracer
        .try_ended()
        .map_err(|error: ChaosError| error.to_string())?;
    tracer.detach().await;
    let _ = sleeper.kill().await;
    let _ = std::fs::remove_file(&output);
    match ended {
        Some(_) => Err("strace may not attach to a process".to_owned()),
        None => Ok(()),
    }
}
