//! `tributary gen certs`: an authority, and a certificate and a key for each region.
//!
//! ```text
//!   DIR/ca.pem  DIR/ca.key       made the first time, used again later
//!   DIR/us.pem  DIR/us.key       for us, with DIR/ca.pem
//! ```

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use thiserror::Error;

use super::config::{ConfigError, check_name};
use crate::certs::{Authority, CertsError, Issued};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The authority outlives what it signs.
const CA_DAYS: u32 = 3650;
/// Clocks of regions differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
const CA: &str = "ca";

/// What can be generated.
#[derive(Clone, Debug, Subcommand)]
pub enum GenCommand {
    /// Certificates by which regions prove to each other who they are.
    Certs(GenCertsArgs),
}

/// Flags of `tributary gen certs`.
#[derive(Clone, Debug, Args)]
pub struct GenCertsArgs {
    /// Where the files go. A CA that is there is used again.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A region to make a certificate for (repeatable).
    #[arg(long = "region", value_name = "NAME", required = true, value_delimiter = ',')]
    pub regions: Vec<String>,
    /// How long the certificates of regions are valid. A new CA is valid for ten years.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(CA_DAYS)))]
    pub days: u32,
    /// Replace certificates and keys of regions that are there. The CA is never replaced.
    #[arg(long)]
    pub force: bool,
}

/// Why nothing, or not everything, was written.
#[derive(Debug, Error)]
pub enum GenCertsError {
    /// No name of a region.
    #[error(transparent)]
    Name(#[from] ConfigError),
    /// Its files would be those of the authority.
    #[error("a region cannot be named {CA:?} here: its files would be those of the CA")]
    NamedCa,
    /// Nothing is overwritten unasked.
    #[error("{} exists already; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// Half an authority.
    #[error("{} is there but {} is not: a CA needs both", .there.display(), .missing.display())]
    HalfCa {
        /// What is there.
        there: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// The authority that is there is of no use.
    #[error("{}: {source}", path.display())]
    Ca {
        /// Its certificate.
        path: PathBuf,
        /// What is wrong.
        source: CertsError,
    },
    /// The library refuses.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The disk.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes the files, and says on `out` which they are and how to use them.
pub fn gen_certs(args: &GenCertsArgs, out: &mut impl Write) -> Result<(), GenCertsError> {
    let regions: BTreeSet<&str> = args.regions.iter().map(String::as_str).collect();
    for region in &regions {
        check_name(region)?;
        if *region == CA {
            return Err(GenCertsError::NamedCa);
        }
        let Pair { cert, key } = Pair::new(&args.out, region);
        for path in [cert, key] {
            if path.exists() && !args.force {
                return Err(GenCertsError::Exists(path));
            }
        }
    }
    fs::create_dir_all(&args.out).map_err(at(&args.out))?;
    let now = SystemTime::now();
    let valid = |days: u32| now - CLOCKS_DIFFER..now + days * DAY;
    let ca = Pair::new(&args.out, CA);
    let authority = match ca.read()? {
        Some(issued) => Authority::open(&issued).map_err(|source| GenCertsError::Ca {
            path: ca.cert.clone(),
            source,
        })?,
        None => {
            let authority = Authority::create(valid(CA_DAYS))?;
            ca.write(&authority.own())?;
            say(out, &format!("{}  the CA, for every region", ca.cert.display()));
            say(
                out,
                &format!("{}  its key: keep it away from regions", ca.key.display()),
            );
            authority
        }
    };
    for region in &regions {
        let pair = Pair::new(&args.out, region);
        pair.write(&authority.issue(region, valid(args.days))?)?;
        let (cert, key) = (pair.cert.display(), pair.key.display());
        say(
            out,
            &format!("{cert}  {key}  for {region}, valid for {} days", args.days),
        );
    }
    say(out, "");
    for region in &regions {
        let pair = Pair::new(&args.out, region);
        say(
            out,
            &format!(
                "tributary start --region {region} --peer-cert {} --peer-key {} --peer-ca {} …",
                pair.cert.display(),
                pair.key.display(),
                ca.cert.display()
            ),
        );
    }
    Ok(())
}

fn say(out: &mut impl Write, line: &str) {
    // Nobody may be reading it.
    let _ = writeln!(out, "{line}");
}

fn at(path: &Path) -> impl Fn(io::Error) -> GenCertsError {
    let path = path.to_owned();
    move |source| GenCertsError::File {
        path: path.clone(),
        source,
    }
}

/// The two files of one name.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn new(directory: &Path, name: &str) -> Pair {
        Pair {
            cert: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        }
    }

    /// What is there; `None` if nothing is.
    fn read(&self) -> Result<Option<Issued>, GenCertsError> {
        match (self.cert.exists(), self.key.exists()) {
            (false, false) => Ok(None),
            (true, true) => Ok(Some(Issued {
                cert: fs::read_to_string(&self.cert).map_err(at(&self.cert))?,
                key: fs::read_to_string(&self.key).map_err(at(&self.key))?,
            })),
            (true, false) => Err(GenCertsError::HalfCa {
                there: self.cert.clone(),
                missing: self.key.clone(),
            }),
            (false, true) => Err(GenCertsError::HalfCa {
                there: self.key.clone(),
                missing: self.cert.clone(),
            }),
        }
    }

    fn write(&self, issued: &Issued) -> Result<(), GenCertsError> {
        write(&self.key, &issued.key, 0o600)?;
        write(&self.cert, &issued.cert, 0o644)
    }
}

/// Under another name first, so that a region that reads the file meanwhile sees the old or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), GenCertsError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let writing = || {
        // One that was left behind could be open to others.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    writing().map_err(at(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::links::{PeerTls, TlsFiles};

    fn certs(out: &Path, regions: &[&str], force: bool) -> Result<String, GenCertsError> {
        let mut said = Vec::new();
        let args = GenCertsArgs {
            out: out.to_owned(),
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            days: 30,
            force,
        };
        gen_certs(&args, &mut said)?;
        Ok(String::from_utf8(said).expect("text"))
    }

    fn usable(directory: &Path, region: &str) -> bool {
        let files = TlsFiles {
            cert: directory.join(format!("{region}.pem")),
            key: directory.join(format!("{region}.key")),
            ca: directory.join("ca.pem"),
        };
        PeerTls::load(files, region, BTreeSet::new()).is_ok()
    }

    #[test]
    fn a_region_that_comes_later_is_signed_by_the_same_ca() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path();
        let said = certs(out, &["us", "eu"], false).expect("an empty directory");
        assert!(said.contains("--region us --peer-cert"), "{said}");
        let ca = fs::read(out.join("ca.pem")).expect("the CA");
        let said = certs(out, &["ap"], false).expect("the CA is there");
        assert!(!said.contains("its key"), "{said}");
        assert_eq!(fs::read(out.join("ca.pem")).expect("the CA"), ca);
        for region in ["us", "eu", "ap"] {
            assert!(usable(out, region), "{region}");
        }
        for key in ["ca.key", "us.key", "ap.key"] {
            let metadata = fs::metadata(out.join(key)).expect("a key");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn nothing_is_overwritten_unless_forced_and_the_ca_never() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path();
        certs(out, &["us"], false).expect("an empty directory");
        let read = |name: &str| fs::read(out.join(name)).expect("a file");
        let (ca, us) = (read("ca.key"), read("us.key"));
        let refused = certs(out, &["eu", "us"], false).expect_err("us.pem is there");
        assert!(refused.to_string().contains("us.pem exists already"), "{refused}");
        assert!(!out.join("eu.pem").exists(), "all or nothing");
        assert_eq!(read("us.key"), us);
        certs(out, &["us"], true).expect("forced");
        assert_ne!(read("us.key"), us);
        assert_eq!(read("ca.key"), ca);
        assert!(usable(out, "us"));
    }

    #[test]
    fn what_is_no_ca_of_ours_signs_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path();
        certs(out, &["us"], false).expect("an empty directory");
        let other = tempfile::tempdir().expect("a temporary directory");
        certs(other.path(), &["us"], false).expect("an empty directory");
        fs::copy(other.path().join("ca.key"), out.join("ca.key")).expect("a copy");
        let refused = certs(out, &["eu"], false).expect_err("the key is of another CA");
        assert!(
            refused.to_string().contains("ca.pem: this is not a CA"),
            "{refused}"
        );
        fs::remove_file(out.join("ca.key")).expect("it is there");
        let refused = certs(out, &["eu"], false).expect_err("there is no key");
        assert!(refused.to_string().contains("a CA needs both"), "{refused}");
        assert!(!out.join("eu.pem").exists());
    }

    #[test]
    fn names_are_those_of_regions() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["../us", "US", "", "ca"] {
            certs(directory.path(), &[name], false).expect_err(name);
        }
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }
}
