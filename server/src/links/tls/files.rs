//! The three files: read, checked against each other, and only then used.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls;
use tokio_rustls::rustls::InconsistentKeys;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::trust::{Authorities, Distrust, PROVIDER, Side, expires};

/// Where a region's certificate, its key and the trusted authorities are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `--peer-cert`: the certificate, and what leads from it to an authority.
    pub cert: PathBuf,
    /// `--peer-key`: its private key.
    pub key: PathBuf,
    /// `--peer-ca`: the authorities; several while one takes over from another.
    pub ca: PathBuf,
}

/// What one of the files has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// The certificate.
    Cert,
    /// The key.
    Key,
    /// The authorities.
    Ca,
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flag::Cert => "--peer-cert",
            Flag::Key => "--peer-key",
            Flag::Ca => "--peer-ca",
        })
    }
}

/// A file that cannot be used.
#[derive(Debug, Error)]
#[error("{flag} {}: {problem}", path.display())]
pub struct TlsError {
    /// Which one.
    pub flag: Flag,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is not there, or not ours to read.
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is no PEM, or damaged.
    #[error("it is not readable as PEM: {0}")]
    Damaged(pem::Error),
    /// It is PEM, but of something else.
    #[error("there is no {0} in it (PEM is needed)")]
    Without(&'static str),
    /// What is in the PEM is no certificate of an authority.
    #[error("there is something in it that is no certificate of a CA: {0}")]
    NoAuthority(webpki::Error),
    /// Peers would not believe it.
    #[error("{0}")]
    Distrusted(#[from] Distrust),
    /// The key is another certificate's.
    #[error("the key does not belong to the certificate of --peer-cert")]
    OtherKey,
    /// A key of a kind that is not known.
    #[error("the key cannot be used: {0}")]
    Key(rustls::Error),
}

/// What the files hold, good to be used.
#[derive(Debug)]
pub(super) struct Credentials {
    /// Certificate and key.
    pub own: Arc<CertifiedKey>,
    /// Who is trusted.
    pub authorities: Arc<Authorities>,
    /// When the certificate's time is over.
    pub expires: Option<UnixTime>,
}

impl TlsFiles {
    /// Reads the files of a region. They are refused where a peer would refuse them.
    pub(super) fn read(&self, region: &str, now: UnixTime) -> Result<Credentials, TlsError> {
        let fails = |flag, path: &Path| {
            let path = path.to_owned();
            move |problem| TlsError { flag, path, problem }
        };
        let (at_ca, at_cert, at_key) = (
            fails(Flag::Ca, &self.ca),
            fails(Flag::Cert, &self.cert),
            fails(Flag::Key, &self.key),
        );
        let authorities = certificates(&self.ca)
            .and_then(|found| Authorities::new(&found).map_err(Problem::NoAuthority))
            .map_err(at_ca)?;
        let chain = certificates(&self.cert)
            .and_then(|chain| {
                check_own(&authorities, &chain, region, now)?;
                Ok(chain)
            })
            .map_err(at_cert)?;
        let expires = expires(&authorities, &chain);
        let own = private_key(&self.key)
            .and_then(|key| match CertifiedKey::from_der(chain, key, &PROVIDER) {
                Ok(own) => Ok(own),
                Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Problem::OtherKey),
                Err(error) => Err(Problem::Key(error)),
            })
            .map_err(at_key)?;
        Ok(Credentials {
            own: Arc::new(own),
            authorities: Arc::new(authorities),
            expires,
        })
    }

    /// What changes when a file is replaced; `None` for one that is not there.
    pub(super) fn stamps(&self) -> [Option<Stamp>; 3] {
        [&self.cert, &self.key, &self.ca].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some(Stamp {
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                bytes: metadata.len(),
                inode: metadata.ino(),
            })
        })
    }
}

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

fn check_own(
    authorities: &Authorities,
    chain: &[CertificateDer<'_>],
    region: &str,
    now: UnixTime,
) -> Result<(), Problem> {
    let (certificate, others) = chain.split_first().ok_or(Problem::Without("certificate"))?;
    for side in [Side::Dialling, Side::Dialled] {
        let named = authorities.region(certificate, others, side, now)?;
        if named != region {
            let expected = region.to_owned();
            return Err(Distrust::OtherRegion { named, expected }.into());
        }
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bytes = std::fs::read(path).map_err(Problem::Unreadable)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match found.map_err(Problem::Damaged)? {
        found if found.is_empty() => Err(Problem::Without("certificate")),
        found => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let bytes = std::fs::read(path).map_err(Problem::Unreadable)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => Problem::Without("private key"),
        error => Problem::Damaged(error),
    })
}
