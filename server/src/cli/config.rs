//! The settings of one region: flags and `TRIBUTARY_…` variables, checked once before anything is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::links::TlsFiles;

/// Flags of `tributary start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Name of this region.
    #[arg(long, env = "TRIBUTARY_REGION", default_value = "local")]
    pub region: String,
    /// Directory of this region's data.
    #[arg(long, env = "TRIBUTARY_DATA", default_value = "./tributary-data")]
    pub data: PathBuf,
    /// Where SQL clients connect.
    #[arg(
        long,
        env = "TRIBUTARY_LISTEN",
        default_value = "127.0.0.1:5450",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// Where the other regions connect.
    #[arg(
        long,
        env = "TRIBUTARY_PEER_LISTEN",
        default_value = "127.0.0.1:5460",
        value_name = "HOST:PORT"
    )]
    pub peer_listen: String,
    /// Another region of the cluster and the address at which it is dialled (repeatable).
    #[arg(
        long = "peer",
        env = "TRIBUTARY_PEER",
        value_name = "NAME=HOST:PORT",
        value_delimiter = ','
    )]
    pub peers: Vec<String>,
    /// This region's certificate for peers (PEM), which names it; see `tributary gen certs`.
    #[arg(long, env = "TRIBUTARY_PEER_CERT", value_name = "FILE")]
    pub peer_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, env = "TRIBUTARY_PEER_KEY", value_name = "FILE")]
    pub peer_key: Option<PathBuf>,
    /// The CA that signs the certificates of all regions (PEM).
    #[arg(long, env = "TRIBUTARY_PEER_CA", value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// Where health and metrics are served.
    #[arg(
        long,
        env = "TRIBUTARY_HTTP",
        default_value = "127.0.0.1:8450",
        value_name = "HOST:PORT"
    )]
    pub http: String,
    /// The region that serializes DDL; its first start founds the cluster. A region alone is its own.
    #[arg(long, env = "TRIBUTARY_PRIMARY_REGION")]
    pub primary_region: Option<String>,
    /// Threads that compute a step of the views; one less than there are processors, unless said otherwise.
    #[arg(long, env = "TRIBUTARY_WORKERS", value_name = "NUMBER")]
    pub workers: Option<usize>,
    /// Memory for the rows of views and slots: `512M`, `4G`, or bytes. What does not fit goes to a file. Hash tables,
    /// aggregates and what is being worked on come on top. Without it everything stays in memory.
    #[arg(long, env = "TRIBUTARY_MEMORY_BUDGET", value_name = "BYTES")]
    pub memory_budget: Option<String>,
    /// This region has lost its log, was restored from an old copy, or was fenced: let it go on as another incarnation.
    /// Does nothing to a region that needs it not.
    #[arg(long, env = "TRIBUTARY_REINCARNATE")]
    pub reincarnate: bool,
    /// Stop as on SIGTERM when standard input ends: how a parent process makes sure that nothing outlives it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// The checked settings of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of this region.
    pub region: String,
    /// Directory of the data; created when missing.
    pub data: PathBuf,
    /// SQL address, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Address for other regions.
    pub peer_listen: String,
    /// Region name -> `host:port` at which it is dialled, and nowhere else.
    pub peers: BTreeMap<String, String>,
    /// Certificates for peers; `None`: connections of peers are neither encrypted nor proven.
    pub tls: Option<TlsFiles>,
    /// Address for health and metrics.
    pub http: String,
    /// Name of the primary region.
    pub primary: String,
    /// Threads that compute a step.
    pub workers: usize,
    /// The bytes of rows of views that stay in memory; `None` keeps all.
    pub memory_budget: Option<usize>,
    /// Whether the region may go on as another incarnation.
    pub reincarnate: bool,
}

/// A smaller budget does not hold the rows of one batch of each operator.
const MEMORY_BUDGET_MIN: usize = 16 << 20;

/// More threads than this share no step: each has its own part of all state.
const WORKERS_MAX: usize = 256;

/// A setting that cannot be used. All are the user's to mend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Region names go into SQL, file names and metrics labels.
    #[error("region name {0:?} is not usable: 1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter")]
    RegionName(String),
    /// `--peer` without an address.
    #[error("--peer {0:?} is not of the form NAME=HOST:PORT")]
    Peer(String),
    /// The same peer twice, or this region itself.
    #[error("--peer names {0:?} twice, or names this region itself")]
    PeerTwice(String),
    /// An address without a port.
    #[error("{flag} {value:?} is not of the form HOST:PORT")]
    Address {
        /// The flag it was given with.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// Some of the files for peers, but not all.
    #[error("--peer-cert, --peer-key and --peer-ca belong together: {0} is missing")]
    TlsFiles(&'static str),
    /// No thread, or absurdly many.
    #[error("--workers {0} is not between 1 and {WORKERS_MAX}")]
    Workers(usize),
    /// Not a number of bytes, or too few.
    #[error(
        "--memory-budget {0:?} is not a number of bytes of at least 16M, such as 512M or 4G: \
         less does not hold one batch of rows"
    )]
    MemoryBudget(String),
    /// With peers, somebody has to say who is the primary.
    #[error("--primary-region is needed when there are peers: name the same region in every region's flags")]
    NoPrimary,
    /// The primary is nobody we know.
    #[error("--primary-region {0:?} is neither this region nor one of its peers")]
    UnknownPrimary(String),
}

impl NodeConfig {
    /// Checks the flags.
    pub fn from_args(args: StartArgs) -> Result<NodeConfig, ConfigError> {
        check_name(&args.region)?;
        let mut peers = BTreeMap::new();
        for peer in args.peers.iter().filter(|peer| !peer.is_empty()) {
            let (name, address) = peer
                .split_once('=')
                .ok_or_else(|| ConfigError::Peer(peer.clone()))?;
            check_name(name)?;
            if !is_address(address) {
                return Err(ConfigError::Peer(peer.clone()));
            }
            if name == args.region || peers.insert(name.to_owned(), address.to_owned()).is_some() {
                return Err(ConfigError::PeerTwice(name.to_owned()));
            }
        }
        let addresses = [
            ("--listen", &args.listen),
            ("--peer-listen", &args.peer_listen),
            ("--http", &args.http),
        ];
        for (flag, value) in addresses {
            if !is_address(value) {
                return Err(ConfigError::Address {
                    flag,
                    value: value.clone(),
                });
            }
        }
        let tls = tls_files(args.peer_cert, args.peer_key, args.peer_ca)?;
        // One processor is left to sources, sessions and the log.
        let spare = || std::thread::available_parallelism().map_or(1, |all| all.get() - 1);
        let workers = args.workers.unwrap_or_else(|| spare().clamp(1, WORKERS_MAX));
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(ConfigError::Workers(workers));
        }
        let memory_budget = match args.memory_budget {
            None => None,
            Some(text) => match bytes(&text).filter(|bytes| *bytes >= MEMORY_BUDGET_MIN) {
                Some(bytes) => Some(bytes),
                None => return Err(ConfigError::MemoryBudget(text)),
            },
        };
        let primary = match args.primary_region {
            Some(primary) => primary,
            None if peers.is_empty() => args.region.clone(),
            None => return Err(ConfigError::NoPrimary),
        };
        if primary != args.region && !peers.contains_key(&primary) {
            return Err(ConfigError::UnknownPrimary(primary));
        }
        Ok(NodeConfig {
            region: args.region,
            data: args.data,
            listen: args.listen,
            peer_listen: args.peer_listen,
            peers,
            tls,
            http: args.http,
            primary,
            workers,
            memory_budget,
            reincarnate: args.reincarnate,
        })
    }

    /// Whether this region serializes DDL.
    pub fn is_primary(&self) -> bool {
        self.primary == self.region
    }
}

/// All three files, or none.
fn tls_files(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key, ca) {
        (None, None, None) => Ok(None),
        (Some(cert), Some(key), Some(ca)) => Ok(Some(TlsFiles { cert, key, ca })),
        (None, _, _) => Err(ConfigError::TlsFiles("--peer-cert")),
        (_, None, _) => Err(ConfigError::TlsFiles("--peer-key")),
        (_, _, None) => Err(ConfigError::TlsFiles("--peer-ca")),
    }
}

/// Whether a region may have this name.
pub(super) fn check_name(name: &str) -> Result<(), ConfigError> {
    let usable = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if usable {
        Ok(())
    } else {
        Err(ConfigError::RegionName(name.to_owned()))
    }
}

/// A number of bytes, with `k`, `M` or `G` for powers of 1024.
fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1 << 10),
        (at, 'm' | 'M') => (&text[..at], 1 << 20),
        (at, 'g' | 'G') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

fn is_address(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> StartArgs {
        StartArgs {
            region: "us".into(),
            data: "d".into(),
            listen: "127.0.0.1:0".into(),
            peer_listen: "[::1]:5460".into(),
            peers: vec![],
            peer_cert: None,
            peer_key: None,
            peer_ca: None,
            http: "localhost:8450".into(),
            primary_region: None,
            workers: None,
            memory_budget: None,
            reincarnate: false,
            stop_with_stdin: false,
        }
    }

    #[test]
    fn a_region_alone_is_its_own_primary() {
        let config = NodeConfig::from_args(args()).expect("the flags are good");
        assert!(config.is_primary());
        assert!(config.peers.is_empty());
    }

    #[test]
    fn peers_need_a_name_an_address_and_a_primary() {
        let with = |peers: &[&str], primary: Option<&str>| {
            NodeConfig::from_args(StartArgs {
                peers: peers.iter().map(|p| p.to_string()).collect(),
                primary_region: primary.map(str::to_owned),
                ..args()
            })
        };
        assert_eq!(with(&["eu=h:1"], None), Err(ConfigError::NoPrimary));
        assert_eq!(
            with(&["eu=h:1"], Some("ap")),
            Err(ConfigError::UnknownPrimary("ap".into()))
        );
        assert_eq!(with(&["eu"], Some("us")), Err(ConfigError::Peer("eu".into())));
        assert_eq!(with(&["eu=h"], Some("us")), Err(ConfigError::Peer("eu=h".into())));
        assert_eq!(
            with(&["us=h:1"], Some("us")),
            Err(ConfigError::PeerTwice("us".into()))
        );
        assert_eq!(
            with(&["eu=h:1", "eu=h:2"], Some("us")),
            Err(ConfigError::PeerTwice("eu".into()))
        );
        assert_eq!(
            with(&["EU=h:1"], Some("us")),
            Err(ConfigError::RegionName("EU".into()))
        );
        let config = with(&["eu=h:1", "ap=h:2"], Some("eu")).expect("the flags are good");
        assert!(!config.is_primary());
        assert_eq!(config.peers["ap"], "h:2");
    }

    #[test]
    fn the_files_for_peers_come_together_or_not_at_all() {
        let with = |cert: Option<&str>, key: Option<&str>, ca: Option<&str>| {
            let config = NodeConfig::from_args(StartArgs {
                peer_cert: cert.map(PathBuf::from),
                peer_key: key.map(PathBuf::from),
                peer_ca: ca.map(PathBuf::from),
                ..args()
            });
            config.map(|config| config.tls)
        };
        assert_eq!(with(None, None, None), Ok(None));
        let all = TlsFiles {
            cert: "us.pem".into(),
            key: "us.key".into(),
            ca: "ca.pem".into(),
        };
        let (cert, key, ca) = (Some("us.pem"), Some("us.key"), Some("ca.pem"));
        assert_eq!(with(cert, key, ca), Ok(Some(all)));
        assert_eq!(with(None, key, ca), Err(ConfigError::TlsFiles("--peer-cert")));
        assert_eq!(with(cert, None, ca), Err(ConfigError::TlsFiles("--peer-key")));
        assert_eq!(with(cert, key, None), Err(ConfigError::TlsFiles("--peer-ca")));
        assert_eq!(with(cert, None, None), Err(ConfigError::TlsFiles("--peer-key")));
    }

    #[test]
    fn workers_are_counted() {
        let with = |workers| {
            let config = NodeConfig::from_args(StartArgs {
                workers: Some(workers),
                ..args()
            });
            config.map(|config| config.workers)
        };
        assert_eq!(with(3), Ok(3));
        assert_eq!(with(0), Err(ConfigError::Workers(0)));
        assert_eq!(with(257), Err(ConfigError::Workers(257)));
    }

    #[test]
    fn budgets_are_bytes() {
        let with = |text: &str| {
            let config = NodeConfig::from_args(StartArgs {
                memory_budget: Some(text.into()),
                ..args()
            });
            config.map(|config| config.memory_budget)
        };
        assert_eq!(with("16M"), Ok(Some(16 << 20)));
        assert_eq!(with("4g"), Ok(Some(4 << 30)));
        assert_eq!(with("20000000"), Ok(Some(20_000_000)));
        for bad in ["", "1k", "M", "-5G", "4GB", "99999999999999999999G"] {
            assert_eq!(with(bad), Err(ConfigError::MemoryBudget(bad.into())), "{bad}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        let bad = StartArgs {
            http: "localhost".into(),
            ..args()
        };
        assert_eq!(
            NodeConfig::from_args(bad),
            Err(ConfigError::Address {
                flag: "--http",
                value: "localhost".into()
            })
        );
    }
}
