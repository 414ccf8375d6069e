//! Which certificates are believed, and whose they are.
//!
//! A certificate is a region's when it chains to one of the authorities, is in its time, may be used for the side on
//! which it is shown, and has exactly one name of the form `tributary://region/NAME` (a URI among its alternative
//! names). Host names play no part: a region is who it is wherever it is dialled. What the authorities are is not
//! questioned: an authority is trusted until it is taken out of the file.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use thiserror::Error;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// What stands before a region's name in its certificate.
pub const REGION_URI: &str = "tributary://region/";

/// The cryptography, for everything here.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

/// Why a certificate is not believed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Distrust {
    /// Its time is over.
    #[error("the certificate expired at {}", moment(*.0))]
    Expired(UnixTime),
    /// Its time has not begun.
    #[error("the certificate is not valid before {}", moment(*.0))]
    NotYet(UnixTime),
    /// Another authority signed it, or nobody.
    #[error("the certificate is not signed by a CA that is trusted here")]
    OtherAuthority,
    /// It has no name of a region.
    #[error("the certificate names no region: an alternative name {REGION_URI}NAME is needed")]
    NamesNobody,
    /// It has several.
    #[error("the certificate names several regions, where one is needed")]
    NamesMany,
    /// It is somebody else's.
    #[error("the certificate is of region {named:?}, not of {expected:?}")]
    OtherRegion {
        /// Whose it is.
        named: String,
        /// Who was expected.
        expected: String,
    },
    /// It is of a region that is no peer.
    #[error("the certificate is of region {0:?}, which is neither a configured peer nor a member")]
    NoPeer(String),
    /// Anything else.
    #[error("the certificate cannot be used: {0}")]
    Unusable(webpki::Error),
}

fn moment(time: UnixTime) -> impl Display {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, 0).map_or_else(
        || format!("second {seconds}"),
        |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}

impl From<webpki::Error> for Distrust {
    fn from(error: webpki::Error) -> Distrust {
        match error {
            webpki::Error::CertExpired { not_after, .. } => Distrust::Expired(not_after),
            webpki::Error::CertNotValidYet { not_before, .. } => Distrust::NotYet(not_before),
            // Two authorities of the same name differ by their keys only.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Distrust::OtherAuthority
            }
            other => Distrust::Unusable(other),
        }
    }
}

/// The alert that the other side gets says as much as TLS can say.
impl From<Distrust> for rustls::Error {
    fn from(distrust: Distrust) -> rustls::Error {
        let time = UnixTime::since_unix_epoch(Duration::ZERO);
        rustls::Error::InvalidCertificate(match distrust {
            Distrust::Expired(not_after) => CertificateError::ExpiredContext { time, not_after },
            Distrust::NotYet(not_before) => CertificateError::NotValidYetContext { time, not_before },
            Distrust::OtherAuthority => CertificateError::UnknownIssuer,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

/// What went wrong in TLS, as a person would say it.
pub(super) fn explain(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented, PeerIncompatible,
    };
    match error {
        InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Distrust::Expired(*not_after).to_string()
        }
        InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Distrust::NotYet(*not_before).to_string()
        }
        InvalidCertificate(CertificateError::UnknownIssuer) => Distrust::OtherAuthority.to_string(),
        InvalidCertificate(CertificateError::Other(OtherError(other))) => other.to_string(),
        AlertReceived(alert) => {
            format!("the other side refused this region's certificate or its TLS: {alert:?}")
        }
        InvalidMessage(detail) => format!("what was sent is not TLS ({detail:?})"),
        NoCertificatesPresented => "no certificate was presented".to_owned(),
        PeerIncompatible(detail) => format!("TLS 1.3 is needed ({detail:?})"),
        other => other.to_string(),
    }
}

/// The side on which a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// By the region that dials.
    Dialling,
    /// By the region that is dialled.
    Dialled,
}

/// Those whose signature makes a certificate believed.
#[derive(Debug)]
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Authorities {
    /// From their certificates.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Authorities, webpki::Error> {
        let anchor = |certificate| anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned());
        let anchors = certificates.iter().map(anchor).collect::<Result<_, _>>()?;
        Ok(Authorities { anchors })
    }

    /// Whose certificate this is; `others` may help to reach an authority.
    pub fn region(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<String, Distrust> {
        let usage = match side {
            Side::Dialling => KeyUsage::client_auth(),
            Side::Dialled => KeyUsage::server_auth(),
        };
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        let parsed = EndEntityCert::try_from(certificate)?;
        parsed.verify_for_usage(algorithms, &self.anchors, others, now, usage, None, None)?;
        region_of(certificate)
    }
}

/// Whose certificate this claims to be.
pub(super) fn region_of(certificate: &CertificateDer<'_>) -> Result<String, Distrust> {
    let parsed = EndEntityCert::try_from(certificate)?;
    let mut names = parsed
        .valid_uri_names()
        .filter_map(|uri| uri.strip_prefix(REGION_URI));
    match (names.next(), names.next()) {
        (None, _) => Err(Distrust::NamesNobody),
        (Some(_), Some(_)) => Err(Distrust::NamesMany),
        (Some(name), None) => Ok(name.to_owned()),
    }
}

/// When a certificate's time is over.
pub(super) fn expires(authorities: &Authorities, chain: &[CertificateDer<'_>]) -> Option<UnixTime> {
    let (certificate, others) = chain.split_first()?;
    // Asked at the end of time, the verifier says which end came before.
    let end = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match authorities.region(certificate, others, Side::Dialled, end) {
        Err(Distrust::Expired(not_after)) => Some(not_after),
        _ => None,
    }
}

/// Who may be at the other end.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// The peer that was dialled.
    Peer(String),
    /// Any configured peer.
    AnyOf(Arc<BTreeSet<String>>),
}

impl Expected {
    fn check(&self, named: String) -> Result<(), Distrust> {
        match self {
            Expected::Peer(expected) if *expected == named => Ok(()),
            Expected::Peer(expected) => Err(Distrust::OtherRegion {
                named,
                expected: expected.clone(),
            }),
            Expected::AnyOf(peers) if peers.contains(&named) => Ok(()),
            Expected::AnyOf(_) => Err(Distrust::NoPeer(named.chars().take(64).collect())),
        }
    }
}

/// Checks the certificate of the other end during a handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Who is trusted.
    pub authorities: Arc<Authorities>,
    /// Who is expected.
    pub expected: Expected,
}

impl Verifier {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let named = self.authorities.region(certificate, others, side, now)?;
        Ok(self.expected.check(named)?)
    }

    fn verify_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &PROVIDER.signature_verification_algorithms,
        )
    }

    fn only_tls13() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is needed".to_owned()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, Side::Dialled, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// Who is trusted is nobody's business: a peer has one certificate and shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, Side::Dialling, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
