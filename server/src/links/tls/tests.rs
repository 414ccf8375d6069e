//! Links over mutual TLS: bad files are named, recorded or changed traffic is refused, both sides prove their names,
//! and a reload counts for new connections only.

use std::path::Path;
use std::time::SystemTime;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::dial::DialFailed;
use super::reload::Reloader;
use super::*;
use crate::certs::{Authority, Issued, Validity};

fn days(from: i64, until: i64) -> Validity {
    let day = |days: i64| {
        let distance = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        let now = SystemTime::now();
        if days < 0 { now - distance } else { now + distance }
    };
    day(from)..day(until)
}

fn authority() -> Authority {
    Authority::create(days(-1, 30)).expect("an authority")
}

fn issue(authority: &Authority, region: &str) -> Issued {
    authority.issue(region, days(-1, 30)).expect("a certificate")
}

/// A region's files in a directory of their own.
struct Installed {
    directory: tempfile::TempDir,
}

impl Installed {
    fn new(authority: &Authority, own: &Issued) -> Installed {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let installed = Installed { directory };
        installed.replace(authority, own);
        installed
    }

    fn replace(&self, authority: &Authority, own: &Issued) {
        self.write("cert.pem", &own.cert);
        self.write("key.pem", &own.key);
        self.write("ca.pem", &authority.own().cert);
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.path("cert.pem"),
            key: self.path("key.pem"),
            ca: self.path("ca.pem"),
        }
    }

    fn load(&self, region: &str, peers: &[&str]) -> Result<PeerTls, TlsError> {
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        PeerTls::load(self.files(), region, peers)
    }

    /// What is said of files that cannot be used.
    fn refused(&self, region: &str) -> String {
        let error = self.load(region, &[]).expect_err("files that cannot be used");
        let named = error
            .path
            .parent()
            .is_some_and(|parent| parent == self.directory());
        assert!(named, "{error}");
        let text = error.to_string();
        text.replace(&format!("{}/", self.directory().display()), "")
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }
}

#[test]
fn every_bad_file_is_named_with_what_is_wrong() {
    let (ours, other) = (authority(), authority());
    let own = issue(&ours, "us");
    let installed = Installed::new(&ours, &own);
    installed.load("us", &[]).expect("good files");

    let with = |cert: &Issued| {
        installed.replace(&ours, cert);
        installed.refused("us")
    };
    let reason = with(&issue(&ours, "eu"));
    assert_eq!(
        reason,
        "--peer-cert cert.pem: the certificate is of region \"eu\", not of \"us\""
    );
    let reason = with(&issue(&other, "us"));
    assert_eq!(
        reason,
        "--peer-cert cert.pem: the certificate is not signed by a CA that is trusted here"
    );
    let expired = ours.issue("us", days(-9, -2)).expect("a certificate");
    let reason = with(&expired);
    assert!(
        reason.starts_with("--peer-cert cert.pem: the certificate expired at 2"),
        "{reason}"
    );
    let early = ours.issue("us", days(2, 9)).expect("a certificate");
    let reason = with(&early);
    assert!(
        reason.starts_with("--peer-cert cert.pem: the certificate is not valid before 2"),
        "{reason}"
    );
    let uris = |uris: &[&str]| ours.issue_uris("us", uris, days(-1, 30)).expect("a certificate");
    for unnamed in [&["spiffe://us", "tributary://cluster/us"][..], &[]] {
        let reason = with(&uris(unnamed));
        assert!(reason.contains("names no region"), "{reason}");
    }
    let reason = with(&uris(&["tributary://region/us", "tributary://region/eu"]));
    assert!(reason.contains("names several regions"), "{reason}");

    let reason = with(&Issued {
        cert: own.cert.clone(),
        key: issue(&ours, "us").key,
    });
    assert_eq!(
        reason,
        "--peer-key key.pem: the key does not belong to the certificate of --peer-cert"
    );
    for (name, flag, what) in [
        ("cert.pem", "--peer-cert", "certificate"),
        ("key.pem", "--peer-key", "private key"),
        ("ca.pem", "--peer-ca", "certificate"),
    ] {
        installed.replace(&ours, &own);
        installed.write(name, "garbage");
        let reason = installed.refused("us");
        assert_eq!(
            reason,
            format!("{flag} {name}: there is no {what} in it (PEM is needed)")
        );
        installed.write(
            name,
            "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
        );
        let reason = installed.refused("us");
        assert!(reason.starts_with(&format!("{flag} {name}: ")), "{reason}");
        std::fs::remove_file(installed.path(name)).expect("it is there");
        let reason = installed.refused("us");
        assert!(
            reason.starts_with(&format!("{flag} {name}: it cannot be read: No such file")),
            "{reason}"
        );
    }
}

#[test]
fn an_authority_may_be_one_of_several() {
    let (old, new) = (authority(), authority());
    let installed = Installed::new(&old, &issue(&new, "us"));
    installed.refused("us");
    installed.write("ca.pem", &(old.own().cert + &new.own().cert));
    installed.load("us", &[]).expect("the second has signed it");
}

/// Stands between a region and another, passes on what is sent to and fro, and keeps what was sent to. With `damage` it
/// flips a bit of every piece after the handshake's first.
async fn listen_in(to: String, damage: bool) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let recording = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("it is dialled");
        let (mut from_dialler, mut to_dialler) = socket.into_split();
        let other = TcpStream::connect(to).await.expect("it listens");
        let (mut from_other, mut to_other) = other.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_other, &mut to_dialler).await });
        let mut recorded = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(bytes @ 1..) = from_dialler.read(&mut piece).await {
            if damage && !recorded.is_empty() {
                piece[bytes - 1] ^= 1;
            }
            recorded.extend_from_slice(&piece[..bytes]);
            if to_other.write_all(&piece[..bytes]).await.is_err() {
                break;
            }
        }
        recorded
    });
    (address, recording)
}

#[tokio::test]
async fn what_was_recorded_or_changed_on_the_way_is_not_taken() {
    let ours = authority();
    let us = Installed::new(&ours, &issue(&ours, "us"));
    let eu = Installed::new(&ours, &issue(&ours, "eu"));
    let us = us.load("us", &["eu"]).expect("good files");
    let eu = eu.load("eu", &["us"]).expect("good files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let mut incoming = Box::pin(accept::incoming(listener, eu));

    let (between, recording) = listen_in(address.clone(), false).await;
    let Ok(mut dialled) = us.dial("eu", &between).await else {
        panic!("nothing is changed on the way");
    };
    dialled.write_all(b"pay 10").await.expect("it is read");
    dialled.flush().await.expect("it is read");
    let mut accepted = incoming.next().await.expect("a connection").expect("it is good");
    let mut said = [0; 6];
    accepted.read_exact(&mut said).await.expect("it is said");
    assert_eq!(&said, b"pay 10");
    drop(dialled);
    drop(accepted);
    let recorded = recording.await.expect("no panic");

    let mut replaying = TcpStream::connect(&address).await.expect("it listens");
    replaying.write_all(&recorded).await.expect("it is read");
    // Its hello and an alert, or nothing at all: what counts is that it is over.
    let _ = replaying.read_to_end(&mut Vec::new()).await;
    assert!(
        futures::FutureExt::now_or_never(incoming.next()).is_none(),
        "a connection that was made of a recording"
    );

    let (between, _recording) = listen_in(address, true).await;
    if let Ok(mut dialled) = us.dial("eu", &between).await {
        let _ = dialled.write_all(b"pay 10").await;
        let _ = dialled.flush().await;
        dialled.read_u8().await.expect_err("it is over");
        let reason = dialled.verdict().reason().expect("TLS ended it").to_owned();
        assert!(reason.contains("refused"), "{reason}");
    }
    assert!(
        futures::FutureExt::now_or_never(incoming.next()).is_none(),
        "a connection that was changed on the way"
    );
}

/// What comes of `from` dialling `to` as `peer`: what each side knows of the other one, after some bytes both ways.
async fn connect(from: &PeerTls, to: &PeerTls, peer: &str) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let mut incoming = Box::pin(accept::incoming(listener, to.clone()));
    let serving = tokio::spawn(async move {
        let mut socket = incoming.next().await?.ok()?;
        let mut byte = [0];
        socket.read_exact(&mut byte).await.ok()?;
        socket.write_all(&byte).await.ok()?;
        socket.flush().await.ok()?;
        let peer = tonic::transport::server::Connected::connect_info(&socket);
        // Until the other side has read it.
        let _ = socket.read_exact(&mut byte).await;
        Some(peer.0.to_string())
    });
    let mut socket = match from.dial(peer, &address).await {
        Ok(socket) => socket,
        Err(DialFailed::Untrusted(reason)) => return Err(format!("dialling: {reason}")),
        Err(DialFailed::Lost(error)) => panic!("{error}"),
    };
    let verdict = socket.verdict();
    let talking = async {
        socket.write_all(b"x").await?;
        socket.flush().await?;
        socket.read_exact(&mut [0]).await
    };
    match talking.await {
        Ok(_) => {
            drop(socket);
            Ok(serving.await.expect("no panic").expect("a connection"))
        }
        Err(error) => Err(verdict
            .reason()
            .map_or_else(|| format!("lost: {error}"), |reason| format!("dialled: {reason}"))),
    }
}

#[tokio::test]
async fn both_sides_have_to_prove_the_names_that_are_expected() {
    let (ours, other) = (authority(), authority());
    let us = Installed::new(&ours, &issue(&ours, "us"));
    let eu = Installed::new(&ours, &issue(&ours, "eu"));
    let us = us.load("us", &["eu"]).expect("good files");
    let eu = eu.load("eu", &["us", "ap"]).expect("good files");
    assert_eq!(connect(&us, &eu, "eu").await, Ok("us".to_owned()));
    assert_eq!(connect(&eu, &us, "us").await, Ok("eu".to_owned()));
    assert_eq!(
        connect(&us, &eu, "ap").await,
        Err("dialling: the certificate is of region \"eu\", not of \"ap\"".to_owned())
    );

    let stranger = Installed::new(&ours, &issue(&ours, "mars"));
    let stranger = stranger.load("mars", &["us"]).expect("good files");
    let refused = connect(&stranger, &us, "us")
        .await
        .expect_err("mars is no peer of us");
    assert!(
        refused.starts_with("dialled: the other side refused this region's certificate"),
        "{refused}"
    );
    let foreign = Installed::new(&other, &issue(&other, "eu"));
    let foreign = foreign.load("eu", &["us"]).expect("good files");
    assert_eq!(
        connect(&foreign, &us, "us").await,
        Err("dialling: the certificate is not signed by a CA that is trusted here".to_owned())
    );
    assert_eq!(
        connect(&us, &foreign, "eu").await,
        Err("dialling: the certificate is not signed by a CA that is trusted here".to_owned())
    );
}

#[tokio::test]
async fn a_port_without_tls_is_not_believed() {
    let ours = authority();
    let us = Installed::new(&ours, &issue(&ours, "us"));
    let us = us.load("us", &["eu"]).expect("good files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        let (mut socket, _): (TcpStream, _) = listener.accept().await.expect("it is dialled");
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    match us.dial("eu", &address).await {
        Err(DialFailed::Untrusted(reason)) => assert!(reason.contains("is not TLS"), "{reason}"),
        Err(DialFailed::Lost(error)) => panic!("{error}"),
        Ok(_) => panic!("a connection without TLS"),
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_good_ones_count_for_new_connections() {
    let (old, new) = (authority(), authority());
    let us_files = Installed::new(&old, &issue(&old, "us"));
    let us = us_files.load("us", &["eu"]).expect("good files");
    let with_old = Installed::new(&old, &issue(&old, "eu"));
    let with_old = with_old.load("eu", &["us"]).expect("good files");
    let with_new = Installed::new(&new, &issue(&new, "eu"));
    let with_new = with_new.load("eu", &["us"]).expect("good files");
    let mut reloader = Reloader::new(us.clone());
    assert!(reloader.look(false), "nothing has changed");

    us_files.write("cert.pem", "half a fi");
    assert!(!reloader.look(false));
    assert!(!reloader.look(false), "still");
    connect(&with_old, &us, "us")
        .await
        .expect("the old files are in use");

    us_files.replace(&new, &issue(&new, "us"));
    connect(&with_old, &us, "us")
        .await
        .expect("nobody has looked yet");
    assert!(reloader.look(false));
    connect(&with_new, &us, "us")
        .await
        .expect("the new files are in use");
    connect(&us, &with_new, "eu").await.expect("also for dialling");
    connect(&with_old, &us, "us")
        .await
        .expect_err("the old ones are not");
}
