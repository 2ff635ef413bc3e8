//! Names of files: as the message has them, made safe, or made up from the media type.

/// The longest name that is passed on, in characters.
const LONGEST: usize = 200;

/// Extensions that do not follow from the media type's second word.
const EXTENSIONS: &[(&str, &str)] = &[
    ("application/gzip", "gz"),
    ("application/msword", "doc"),
    ("application/octet-stream", "bin"),
    ("application/pgp-encrypted", "asc"),
    ("application/pgp-keys", "asc"),
    ("application/pgp-signature", "asc"),
    ("application/pkcs7-mime", "p7m"),
    ("application/pkcs7-signature", "p7s"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-powerpoint", "ppt"),
    ("application/vnd.oasis.opendocument.spreadsheet", "ods"),
    ("application/vnd.oasis.opendocument.text", "odt"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/x-pkcs7-mime", "p7m"),
    ("application/x-pkcs7-signature", "p7s"),
    ("application/x-zip-compressed", "zip"),
    ("audio/mpeg", "mp3"),
    ("image/jpeg", "jpg"),
    ("image/svg+xml", "svg"),
    ("message/delivery-status", "txt"),
    ("message/disposition-notification", "txt"),
    ("message/global", "eml"),
    ("message/rfc822", "eml"),
    ("text/calendar", "ics"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/rfc822-headers", "txt"),
    ("text/vcard", "vcf"),
    ("text/x-vcard", "vcf"),
];

/// A name that the message has, as a name of a file and not of a place; `None` if nothing is left of it.
pub fn safe(given: &str) -> Option<String> {
    let clean: String = given.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let clean = clean.trim();
    if clean.chars().all(|c| matches!(c, '.' | '_' | ' ')) {
        return None;
    }
    let skipped = clean.chars().count().saturating_sub(LONGEST);
    // The end stays: it has the extension.
    Some(clean.chars().skip(skipped).collect())
}

/// A name for the attachment at `position`, counted from 1.
pub fn invented(media_type: &str, position: usize) -> String {
    format!("attachment-{position}.{}", extension(media_type))
}

fn extension(media_type: &str) -> &str {
    if let Some((_, extension)) = EXTENSIONS.iter().find(|(known, _)| *known == media_type) {
        return extension;
    }
    let sub = media_type.split_once('/').map_or("", |(_, sub)| sub);
    let sub = sub.strip_prefix("x-").unwrap_or(sub);
    let is_extension = (2..=5).contains(&sub.len()) && sub.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_extension { sub } else { "bin" }
}
