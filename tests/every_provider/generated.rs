//! Messages as applications write them, made from a number: the same number, the same message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One message, and what must arrive of it.
pub struct Generated {
    /// Its number, which its subject has in it.
    pub number: usize,
    /// Everybody whom RCPT names.
    pub recipients: Vec<String>,
    /// Its octets as handed in.
    pub octets: Vec<u8>,
    /// The same without the Bcc field.
    pub without_bcc: Vec<u8>,
    /// Its subject, decoded.
    pub subject: String,
    /// Its plain text, decoded, with LF.
    pub text: Option<String>,
    /// Its HTML, decoded, with LF.
    pub html: Option<String>,
    /// Names and octets of its attachments and pictures.
    pub attachments: Vec<(String, Vec<u8>)>,
}

/// A generator of numbers (Knuth's MMIX), enough to vary messages with.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }
}

/// Message `number`, to one to three recipients in each of `domains`.
pub fn generate(number: usize, domains: &[String]) -> Generated {
    let mut dice = Dice(number as u64 ^ 0x9e37_79b9);
    let recipients: Vec<String> = domains
        .iter()
        .flat_map(|domain| {
            (0..=dice.roll(3))
                .map(|nth| format!("{}{nth}.m{number}@{domain}", ["ann", "Bob", "o'hara", "d-e_f+g"][nth]))
                .collect::<Vec<_>>()
        })
        .collect();

    let (mut to, mut cc, mut bcc) = (Vec::new(), Vec::new(), Vec::new());
    for address in &recipients {
        match dice.roll(5) {
            0 | 1 => to.push(shown(&mut dice, address)),
            2 => cc.push(shown(&mut dice, address)),
            3 => bcc.push(address.clone()),
            // In the envelope alone.
            _ => {}
        }
    }
    // People who are shown and are no recipients of this copy.
    if dice.roll(3) == 0 {
        to.push(format!("Stranger <stranger.m{number}@elsewhere.example>"));
    }
    if dice.roll(4) == 0 {
        cc.push(format!("stranger-2.m{number}@{}", dice.pick(&domains.iter().map(String::as_str).collect::<Vec<_>>())));
    }

    let subject = format!(
        "{} no. {number} of today",
        dice.pick(&["Invoice", "Gr\u{fc}\u{df}e aus K\u{f6}ln", "\u{65e5}\u{672c}\u{8a9e}", "Re: backup \"failed\"; see <log>, please"])
    );
    let mut header = format!(
        "From: {}\r\n",
        dice.pick(&[
            "<app@sender.example>",
            "The App <app@sender.example>",
            "\"App, the\" <app@sender.example>",
            "=?utf-8?q?B=C3=BCro?= <app@sender.example>"
        ])
    );
    let list = |name: &str, all: &[String]| if all.is_empty() { String::new() } else { format!("{name}: {}\r\n", all.join(",\r\n ")) };
    header += &list("To", &to);
    header += &list("Cc", &cc);
    let bcc = list("Bcc", &bcc);
    let mut rest =
        format!("Subject: {}\r\nDate: Tue, 24 Nov 2026 11:00:00 +0000\r\nMessage-ID: <m{number}@sender.example>\r\n", encoded(&subject));
    for field in [
        "Reply-To: Desk <desk@sender.example>",
        "List-Unsubscribe: <https://sender.example/u>",
        "X-App-Job: job-17",
        "In-Reply-To: <m0@sender.example>",
    ] {
        if dice.roll(3) == 0 {
            rest += &format!("{field}\r\n");
        }
    }
    rest += "MIME-Version: 1.0\r\n";

    let text = format!("Good day,\n.\n..dots\nnumber {number} \u{20ac} 5\n\nThe application\n");
    let html = format!("<html><body><p>Number {number} \u{20ac} 5</p>\n<img src=\"cid:logo@sender.example\"></body></html>\n");
    let (mut wanted_text, mut wanted_html, mut attachments) = (None, None, Vec::new());
    let (plain, rich) = (part(&mut dice, "text/plain", &text), part(&mut dice, "text/html", &html));
    let body = match dice.roll(5) {
        0 | 1 => {
            wanted_text = Some(text);
            plain
        }
        2 => {
            wanted_html = Some(html);
            rich
        }
        3 => {
            (wanted_text, wanted_html) = (Some(text), Some(html));
            multipart("alternative", "alt", &[plain, rich])
        }
        _ => {
            (wanted_text, wanted_html) = (Some(text), Some(html));
            let octets: Vec<u8> = (0..200 + dice.roll(2000)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
            let picture: Vec<u8> = (0..100).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
            let file = attachment("application/pdf", "attachment; filename=\"report.pdf\"", "", &octets);
            let inline = attachment("image/png", "inline; filename=\"logo.png\"", "Content-ID: <logo@sender.example>\r\n", &picture);
            attachments = vec![("logo.png".to_owned(), picture), ("report.pdf".to_owned(), octets)];
            let related = multipart("related", "rel", &[multipart("alternative", "alt", &[plain, rich]), inline]);
            multipart("mixed", "mix", &[related, file])
        }
    };
    let message = |bcc: &str| format!("{header}{bcc}{rest}{body}").into_bytes();
    Generated {
        number,
        recipients,
        octets: message(&bcc),
        without_bcc: message(""),
        subject,
        text: wanted_text,
        html: wanted_html,
        attachments,
    }
}

fn shown(dice: &mut Dice, address: &str) -> String {
    match dice.roll(4) {
        0 => address.to_owned(),
        1 => format!("<{address}>"),
        2 => format!("\"Last, First\" <{address}>"),
        _ => format!("=?utf-8?b?{}?= <{address}>", STANDARD.encode("J\u{fc}rgen")),
    }
}

fn encoded(text: &str) -> String {
    if text.is_ascii() { text.to_owned() } else { format!("=?utf-8?b?{}?=", STANDARD.encode(text)) }
}

/// A text in one of the encodings that applications use.
fn part(dice: &mut Dice, media_type: &str, text: &str) -> String {
    let text = text.replace('\n', "\r\n");
    let (encoding, content) = match dice.roll(3) {
        0 => ("8bit", text),
        1 => ("base64", wrapped(text.as_bytes())),
        _ => ("quoted-printable", text.replace('=', "=3D").replace('\u{20ac}', "=E2=82=AC")),
    };
    format!("Content-Type: {media_type}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{content}")
}

fn attachment(media_type: &str, disposition: &str, more: &str, octets: &[u8]) -> String {
    let head =
        format!("Content-Type: {media_type}\r\nContent-Disposition: {disposition}\r\n{more}Content-Transfer-Encoding: base64\r\n\r\n");
    head + &wrapped(octets)
}

fn wrapped(octets: &[u8]) -> String {
    let encoded = STANDARD.encode(octets);
    encoded.as_bytes().chunks(76).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect()
}

fn multipart(kind: &str, boundary: &str, parts: &[String]) -> String {
    let each: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}\r\n")).collect();
    format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n{each}--{boundary}--\r\n")
}
