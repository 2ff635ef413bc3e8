//! Message data: one end, wherever the packets are cut, and the same again behind another relay.

use bytes::{Bytes, BytesMut};
use postrider::smtp::decoder::Decoder;

use super::cuts::cut;

// The file itself: what the smart host writes is what must be read back, and it need not be public.
#[path = "../../providers/src/smtp/dot.rs"]
mod dot;

/// What became of some input.
#[derive(Debug, PartialEq, Eq)]
struct Decoded<'a> {
    content: BytesMut,
    bare_newlines: u64,
    /// What follows the end of data; `None` if the end was not met.
    rest: Option<&'a [u8]>,
}

/// Checks the octets behind the first as data; the first says how to cut them.
///
/// # Panics
/// When cutting changes the result; when content has a CR or LF that stands alone; when the end is
/// found elsewhere than at the first CRLF.CRLF; when the content does not survive being sent on.
pub fn check(input: &[u8]) {
    let Some((&seed, input)) = input.split_first() else { return };
    let whole = decode(input, 255);
    for seed in [0, seed] {
        assert_eq!(decode(input, seed), whole, "packets cut by {seed} change the result");
    }
    only_the_real_end_ends(input, &whole);
    goes_out_with_one_end(input, seed);
    if whole.rest.is_some() {
        no_newline_stands_alone(&whole.content);
        let next = goes_out_with_one_end(&whole.content, seed);
        assert_eq!(next, whole.content, "the next server reads other content");
    }
}

fn decode(input: &[u8], seed: u8) -> Decoded<'_> {
    let mut decoder = Decoder::default();
    let mut content = BytesMut::new();
    let mut taken = 0;
    for packet in cut(input, seed) {
        let used = decoder.decode(packet, &mut content);
        taken += used;
        if decoder.is_done() {
            break;
        }
        assert_eq!(used, packet.len(), "the decoder left octets before the end of data");
    }
    Decoded { content, bare_newlines: decoder.bare_newlines(), rest: decoder.is_done().then(|| &input[taken..]) }
}

/// RFC 5321 section 4.1.1.4, by the plainest means: the first CRLF.CRLF, the CRLF of the DATA command
/// standing before the first octet.
fn only_the_real_end_ends(input: &[u8], whole: &Decoded<'_>) {
    let wire = [b"\r\n", input].concat();
    let end = wire.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| &input[at + 3..]);
    assert_eq!(whole.rest, end, "the data ends elsewhere than at the first CRLF.CRLF");
}

fn no_newline_stands_alone(content: &[u8]) {
    for (at, octet) in content.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(content.get(at + 1), Some(&b'\n'), "a CR stands alone at {at}"),
            b'\n' => assert_eq!(at.checked_sub(1).map(|before| content[before]), Some(b'\r'), "an LF stands alone at {at}"),
            _ => {}
        }
    }
}

/// What the smart host writes has one end for the next server, however loosely that one reads line
/// ends, whatever the content is; gives what it then has.
fn goes_out_with_one_end(content: &[u8], seed: u8) -> BytesMut {
    let mut stuffer = dot::DotStuffer::new();
    let mut wire = Vec::new();
    for piece in cut(content, seed) {
        wire.extend_from_slice(&stuffer.stuff(Bytes::copy_from_slice(piece)));
    }
    wire.extend_from_slice(stuffer.line_end());
    wire.extend_from_slice(b".\r\n");
    no_newline_stands_alone(&wire);
    let next = decode(&wire, 255);
    assert_eq!(next.rest, Some(&b""[..]), "the next server finds the end elsewhere");
    next.content
}
