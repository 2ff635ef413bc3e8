//! The PROXY protocol, versions 1 and 2: a load balancer says who the client is, before anything else.
//!
//! Not one octet more than the header is read: what follows it (a greeting, a TLS handshake) is for
//! whoever reads next.

use std::io;
use std::net::IpAddr;

use bytes::BytesMut;
use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 1 begins with, and the length of its shortest header.
const V1: (&[u8], usize) = (b"PROXY ", b"PROXY UNKNOWN\r\n".len());

/// What version 2 begins with, and the length of the part that every header has.
const V2: (&[u8], usize) = (b"\r\n\r\n\0\r\nQUIT\n", 16);

/// The longest header. The addresses need 52 octets at most; the rest is for the additions of
/// version 2 (names, certificates), which are of no use here.
const MAX_HEADER: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// Nothing came: a health check that only connects.
    #[error("the connection was closed at once")]
    Nothing,
    /// Something else came.
    #[error("expected a PROXY header; is the sender set to send one?")]
    NoHeader,
    /// It begins like a header.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It is longer than anything that is of use.
    #[error("the PROXY header is longer than {MAX_HEADER} octets")]
    TooLong,
    /// The connection ended or broke within it.
    #[error("the connection ended within the PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads one header. `None` if it names nobody: the proxy speaks for itself (a health check), or does
/// not know.
pub(super) async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Result<Option<IpAddr>, ProxyError> {
    let mut header = BytesMut::with_capacity(128);
    loop {
        let more = wanted(&header)?;
        if header.len() + more > MAX_HEADER {
            return Err(ProxyError::TooLong);
        }
        match (&mut *io).take(more as u64).read_buf(&mut header).await {
            Ok(0) if header.is_empty() => return Err(ProxyError::Nothing),
            Ok(0) => return Err(ProxyError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            // A health check may end with a reset.
            Err(_) if header.is_empty() => return Err(ProxyError::Nothing),
            Err(error) => return Err(error.into()),
        }
        match ProxyHeader::parse(&header, ParseConfig { include_tlvs: false, ..ParseConfig::default() }) {
            Ok((header, _)) => {
                return match header.proxied_address() {
                    Some(proxied) if proxied.protocol == Protocol::Datagram => Err(ProxyError::Malformed),
                    proxied => Ok(proxied.map(|proxied| proxied.source.ip().to_canonical())),
                };
            }
            Err(Error::BufferTooShort) => {}
            Err(_) => {
                // Whatever is wrong with it: is it one at all?
                let _ = wanted(&header)?;
                return Err(ProxyError::Malformed);
            }
        }
    }
}

/// How many octets more are certainly part of the header.
fn wanted(header: &[u8]) -> Result<usize, ProxyError> {
    let begins = |with: &[u8]| header.iter().zip(with).all(|(one, other)| one == other);
    let known = header.len();
    if known == 0 {
        // No header of either version is shorter.
        return Ok(V1.1);
    }
    if begins(V2.0) {
        let length = header.get(14..16).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
        return Ok((V2.1 + length).saturating_sub(known).max(1));
    }
    if begins(V1.0) {
        // It ends with a line end, wherever that is.
        return Ok(V1.1.saturating_sub(known).max(1));
    }
    Err(ProxyError::NoHeader)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// What is read of `input`, and what is left of it, when it comes in pieces of this size.
    async fn read_from(input: &[u8], piece: usize) -> (Result<Option<IpAddr>, ProxyError>, Vec<u8>) {
        let (mut client, mut server) = duplex(piece);
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            let _ = client.write_all(&input).await;
        });
        let read = read(&mut server).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        writing.await.unwrap();
        (read, rest)
    }

    fn version_2(source: &str, tlvs: Vec<Tlv<'_>>) -> Vec<u8> {
        let address = ProxiedAddress::stream(source.parse().unwrap(), source.parse().unwrap());
        let mut header = Vec::new();
        ProxyHeader::with_tlvs(Some(address), tlvs).encode_v2(&mut header).unwrap();
        header
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_what_follows_is_not_lost() {
        let additions = vec![Tlv::Authority("relay.example".into()), Tlv::Ssl(proxy_header::SslInfo::new(true, false, false, 0))];
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 25\r\n".to_vec(), "192.0.2.7"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 25\r\n".to_vec(), "2001:db8::7"),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 12345 25\r\n".to_vec(), "192.0.2.7"),
            (version_2("192.0.2.7:12345", Vec::new()), "192.0.2.7"),
            (version_2("[2001:db8::7]:12345", Vec::new()), "2001:db8::7"),
            (version_2("192.0.2.7:12345", additions), "192.0.2.7"),
        ] {
            for piece in [1, 2, 7, 1000] {
                let input = [&header[..], b"EHLO early.example\r\n"].concat();
                let (read, rest) = read_from(&input, piece).await;
                assert_eq!(read.unwrap(), Some(client.parse().unwrap()));
                assert_eq!(rest, b"EHLO early.example\r\n");
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_speaks_for_itself_names_nobody() {
        let mut local = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut local).unwrap();
        for header in [b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), local] {
            let (read, rest) = read_from(&[&header[..], b"QUIT\r\n"].concat(), 1000).await;
            assert_eq!(read.unwrap(), None);
            assert_eq!(rest, b"QUIT\r\n");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused_as_soon_as_it_shows() {
        for (input, wanted) in [
            (&b"EHLO client.example\r\n"[..], "expected a PROXY header"),
            (b"\x16\x03\x01\x02\x00", "expected a PROXY header"),
            (b"PROXY TCP4 192.0.2.7", "ended within"),
            (b"PROXY TCP4 192.0.2.700 198.51.100.1 1 2\r\n", "malformed"),
            (b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n", "malformed"),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\rX", "malformed"),
            (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c123456789012", "malformed"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c123456789012", "malformed"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "longer than"),
            (b"", "closed at once"),
        ] {
            let (read, _) = read_from(input, 1000).await;
            let error = read.unwrap_err().to_string();
            assert!(error.contains(wanted), "{input:?}: {error}");
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 500]].concat();
        assert!(matches!(read_from(&endless, 1000).await.0, Err(ProxyError::Malformed)));
        // An SMTP client that waits for an answer is not kept waiting.
        let (mut client, mut server) = duplex(100);
        client.write_all(b"EHLO").await.unwrap();
        assert!(matches!(read(&mut server).await, Err(ProxyError::NoHeader)));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(start in prop_oneof![Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(V2.0), Just(&b""[..])], rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read_from(&[start, &rest].concat(), 1000));
        }
    }
}
