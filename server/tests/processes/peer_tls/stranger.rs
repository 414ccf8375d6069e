//! Somebody with a certificate of choice: dials a region or answers for one, and believes everybody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrow_flight::flight_service_client::FlightServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint, Uri};
use tributary_server::certs::Issued;

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn parts(own: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
    (vec![cert], key)
}

/// A handshake with a region, of a stranger with or without a certificate.
pub async fn handshake(
    address: SocketAddr,
    own: Option<&Issued>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a known version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let (chain, key) = parts(own);
            config.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let anybody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
    let socket = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(anybody, socket)
        .await
}

/// A Flight client with this certificate.
pub async fn dial(address: SocketAddr, own: &Issued) -> FlightServiceClient<Channel> {
    let mut only = Some(
        handshake(address, Some(own), &TLS13)
            .await
            .expect("a good certificate"),
    );
    let connector = tower::service_fn(move |_: Uri| {
        let socket = only.take().map(TokioIo::new);
        async { socket.ok_or_else(|| io::Error::other("there was one connection")) }
    });
    let endpoint = Endpoint::from_static("http://peer");
    let channel = endpoint.connect_with_connector(connector).await;
    FlightServiceClient::new(channel.expect("it is connected"))
}

/// Answers for a peer at its address with this certificate, and asks for none.
pub async fn answer(address: SocketAddr, own: &Issued) {
    let (chain, key) = parts(own);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("a known version")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.expect("a free port");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = acceptor.accept(socket).await;
        }
    });
}
