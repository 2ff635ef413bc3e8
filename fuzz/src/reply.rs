//! What every reply of the server must look like (RFC 5321 section 4.2).

/// The replies in what a server wrote, each with all of its lines.
///
/// # Panics
/// When anything in it is no well-formed reply.
pub fn split(output: &[u8]) -> Vec<Vec<&str>> {
    let Ok(output) = std::str::from_utf8(output) else {
        panic!("the server wrote what is not even UTF-8: {}", output.escape_ascii());
    };
    let mut replies = Vec::new();
    let mut lines = Vec::new();
    for line in output.split_inclusive('\n') {
        let Some(line) = line.strip_suffix("\r\n") else { panic!("a line of a reply does not end with CRLF: {line:?}") };
        let last = check_line(line);
        if let Some(first) = lines.first() {
            let first: &&str = first;
            assert_eq!(first[..3], line[..3], "one reply has two codes");
        }
        lines.push(line);
        if last {
            replies.push(std::mem::take(&mut lines));
        }
    }
    assert!(lines.is_empty(), "a reply has no last line: {lines:?}");
    replies
}

/// Checks one line of a reply without its CRLF; says whether it is the last.
fn check_line(line: &str) -> bool {
    // RFC 5321 section 4.5.3.1.5: at most 512 octets, the CRLF among them.
    assert!(line.len() <= 510, "a line of a reply has {} octets: {line:?}", line.len());
    // RFC 6531 section 3.7.4.2: nothing outside ASCII; and a control character could hide a line end.
    assert!(line.bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\t')), "a reply has more than printable ASCII: {line:?}");
    let (code, text) = line.as_bytes().split_at_checked(3).unwrap_or_else(|| panic!("a reply without a code: {line:?}"));
    assert!(matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']), "a reply without a code: {line:?}");
    match text.first() {
        Some(b' ') => true,
        Some(b'-') => false,
        _ => panic!("a reply needs a space or a hyphen behind its code: {line:?}"),
    }
}
