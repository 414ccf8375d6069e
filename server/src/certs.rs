//! Making certificates: an authority of one's own, and what it signs for regions.
//!
//! This is for trying and for small clusters; [`crate::links::tls`] takes certificates of any authority that puts the
//! name of the region where it is looked for.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};

use crate::links::tls::trust::{Authorities, REGION_URI, Side};

/// The time of a certificate.
pub type Validity = Range<SystemTime>;

/// An authority: whoever has its key is every region.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// A certificate or a key that cannot be made or taken.
#[derive(Debug, Error)]
pub enum CertsError {
    /// The library refuses.
    #[error("a certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    /// Not what [`Authority::create`] made.
    #[error("this is not a CA that `tributary gen certs` made, or the key is of another one")]
    NotOurs,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// A new authority.
    pub fn create(validity: Validity) -> Result<Authority, CertsError> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        set_validity(&mut params, validity);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            cert_pem,
        })
    }

    /// An authority that was created before.
    pub fn open(issued: &Issued) -> Result<Authority, CertsError> {
        let key = KeyPair::from_pem(&issued.key).map_err(|_| CertsError::NotOurs)?;
        let authority = Authority {
            issuer: Issuer::new(authority_params(), key),
            cert_pem: issued.cert.clone(),
        };
        let now = SystemTime::now();
        let proof = authority.issue("proof", now..now + Duration::from_secs(3600))?;
        if authority.signed(&proof) {
            Ok(authority)
        } else {
            Err(CertsError::NotOurs)
        }
    }

    fn signed(&self, issued: &Issued) -> bool {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
        let (Some(own), Some(proof)) = (der(&self.cert_pem), der(&issued.cert)) else {
            return false;
        };
        Authorities::new(&[own]).is_ok_and(|authorities| {
            authorities
                .region(&proof, &[], Side::Dialled, UnixTime::now())
                .is_ok()
        })
    }

    /// Its own certificate, and its key.
    pub fn own(&self) -> Issued {
        Issued {
            cert: self.cert_pem.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate of a region, with a new key.
    pub fn issue(&self, region: &str, validity: Validity) -> Result<Issued, CertsError> {
        self.issue_uris(region, &[&format!("{REGION_URI}{region}")], validity)
    }

    /// The same for other alternative names.
    pub(crate) fn issue_uris(
        &self,
        common_name: &str,
        uris: &[&str],
        validity: Validity,
    ) -> Result<Issued, CertsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        for uri in uris {
            let uri = Ia5String::try_from(*uri)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The same for every authority, so that one can be opened by its key alone.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Tributary regions");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(validity.start);
    params.not_after = epoch + since_1970(validity.end);
}
