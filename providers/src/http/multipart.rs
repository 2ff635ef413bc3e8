//! A `multipart/form-data` body in one piece (RFC 7578), so that it is known when all of it has left.

use uuid::Uuid;

/// A form that is being written.
#[derive(Debug)]
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// An empty form with room for `octets` of values.
    #[must_use]
    pub fn with_capacity(octets: usize) -> Self {
        // Made just now and with 74 random bits, so that no value can hold it.
        let boundary = format!("postrider-{}", Uuid::now_v7().as_simple());
        Self { boundary, body: Vec::with_capacity(octets.saturating_add(1024)) }
    }

    /// A field. Its name is one of ours; its value may be anything.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), None, value.as_bytes());
        self
    }

    /// A file. Name, file name and media type are ours; its octets may be anything.
    #[must_use]
    pub fn file(mut self, name: &'static str, file: &'static str, media_type: &'static str, octets: &[u8]) -> Self {
        self.part(&format!("name=\"{name}\"; filename=\"{file}\""), Some(media_type), octets);
        self
    }

    /// The Content-Type and the body.
    #[must_use]
    pub fn end(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }

    fn part(&mut self, disposition: &str, media_type: Option<&str>, octets: &[u8]) {
        let media_type = media_type.map(|media_type| format!("Content-Type: {media_type}\r\n")).unwrap_or_default();
        let head = format!("--{}\r\nContent-Disposition: form-data; {disposition}\r\n{media_type}\r\n", self.boundary);
        for piece in [head.as_bytes(), octets, b"\r\n"] {
            self.body.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_rfc_7578_has_it() {
        let (kind, body) =
            Form::with_capacity(0).field("to", "\"a b\"@c.example").file("message", "m.eml", "message/rfc822", b"A: b\r\n\xff").end();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\n\"a b\"@c.example\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"message\"; filename=\"m.eml\"\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n"
        );
        assert_eq!(body, [expected.as_bytes(), b"\xff\r\n--", boundary.as_bytes(), b"--\r\n"].concat());
    }
}
