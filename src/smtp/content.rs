//! The content of one message on its way to the spool, the same for DATA and BDAT: what is wrong with
//! it is found, what is put up with is mended.
//!
//! Which refusal a message gets depends on its octets alone, not on how the network cut them: the
//! faults are collected, and the first of a fixed order is told. Once there is one, the rest is read
//! and dropped.

use bytes::{Bytes, BytesMut};
use postrider_providers::contract::{Body, Priority};
use postrider_providers::mime::signature::Signature;
use tracing::warn;

use super::carriage;
use super::census::Oddity;
use super::fold::LineFolder;
use super::header::{HeaderFilter, HeaderTooLarge, MissingFields};
use super::reply::{self, Reply};
use super::trace::MAX_HOPS;
use crate::access::Tolerance;
use crate::config::{self, BareNewline, LongLines};
use crate::route::Room;
use crate::spool::{BodySink, SpoolError};

/// Content while it arrives. Its lines end with CRLF.
pub(super) struct Content<B> {
    /// `None` once it is refused: nothing of the message stays behind.
    sink: Option<B>,
    tolerance: Tolerance,
    folder: Option<LineFolder>,
    filter: HeaderFilter,
    octets: u64,
    max_octets: u64,
    /// Octets for the spool, what this host adds included.
    stored: u64,
    /// The most that may become, for every recipient to have a provider.
    room: Option<Room>,
    bare_newlines: u64,
    is_too_large: bool,
    has_large_header: bool,
    /// What else stands in the way.
    refused: Option<Reply>,
}

/// Content that has arrived, all of it.
pub(super) struct Ended<B>(Content<B>);

/// Content that has arrived and may be taken.
pub(super) struct Finished {
    /// How many octets the client sent, dot-stuffing and mending left out.
    pub octets: u64,
    /// All of it, with the fields of this host.
    pub body: Body,
    /// What was put up with.
    pub oddities: Vec<Oddity>,
}

impl<B: BodySink> Content<B> {
    /// Content that goes to `sink`; `missing` are the fields that it gets if it has none of their own.
    pub fn new(sink: B, tolerance: Tolerance, max_octets: u64, missing: impl FnOnce() -> MissingFields) -> Self {
        Self {
            sink: Some(sink),
            tolerance,
            folder: (tolerance.long_lines != LongLines::Keep).then(LineFolder::default),
            filter: HeaderFilter::new((tolerance.missing_fields == config::MissingFields::Add).then(missing)),
            octets: 0,
            max_octets,
            stored: 0,
            room: None,
            bare_newlines: 0,
            is_too_large: false,
            has_large_header: false,
            refused: None,
        }
    }

    /// Sets the most that all of it together may become.
    pub fn limit(&mut self, room: Option<Room>) {
        self.room = room;
    }

    /// So much more is announced to come.
    pub fn expect(&mut self, octets: u64) {
        if self.octets.saturating_add(octets) > self.max_octets {
            self.is_too_large = true;
            self.sink = None;
        }
    }

    /// Takes what has arrived. Up to here, `bare_newlines` were met and became CRLF.
    pub async fn take(&mut self, arrived: BytesMut, bare_newlines: u64) {
        self.octets += arrived.len() as u64;
        self.bare_newlines = bare_newlines;
        self.is_too_large |= self.octets > self.max_octets;
        let arrived = match &mut self.folder {
            Some(folder) if !self.is_too_large => folder.pass(&arrived),
            _ => arrived,
        };
        self.pass(arrived).await;
    }

    /// Writes what goes before the client's content.
    pub async fn store(&mut self, bytes: Bytes) {
        self.stored += bytes.len() as u64;
        if let Some(room) = self.room.take_if(|room| self.stored > room.octets) {
            self.refuse(carriage::too_large(&room));
        }
        if let (Some(sink), false) = (&mut self.sink, bytes.is_empty())
            && let Err(error) = sink.write(bytes).await
        {
            warn!(%error, "a message body could not be written");
            self.refuse(storage_reply(&error));
        }
    }

    /// Refuses it for a reason of its own; the first one stands.
    pub fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
        self.sink = None;
    }

    /// Why the message is refused, by what has arrived of it.
    pub fn refusal(&self) -> Option<Reply> {
        let faults = [
            (self.is_too_large, reply::TOO_LARGE),
            (self.filter.hops() >= MAX_HOPS, reply::TOO_MANY_HOPS),
            (self.has_large_header, reply::HEADER_TOO_LARGE),
            (self.tolerance.long_lines == LongLines::Reject && self.folded() > 0, reply::LONG_LINE),
            (self.tolerance.bare_newline == BareNewline::Reject && self.bare_newlines > 0, reply::BARE_NEWLINE),
        ];
        faults.into_iter().find_map(|(is_so, reply)| is_so.then_some(reply)).or_else(|| self.refused.clone())
    }

    /// Nothing more comes: what was held back goes on.
    pub async fn end(mut self) -> Ended<B> {
        if let Some(folder) = &mut self.folder {
            let rest = folder.finish();
            self.pass(rest).await;
        }
        let rest = self.filter.finish();
        self.store(rest).await;
        Ended(self)
    }

    /// Through the filter, which sees everything that is not beyond hope, so that its verdict does not
    /// depend on when another one came.
    async fn pass(&mut self, data: BytesMut) {
        if !self.is_too_large && !self.has_large_header {
            match self.filter.pass(data) {
                Ok(bytes) => self.store(bytes).await,
                Err(HeaderTooLarge) => self.has_large_header = true,
            }
        }
        if self.refusal().is_some() {
            self.sink = None;
        }
    }

    fn folded(&self) -> u64 {
        self.folder.as_ref().map_or(0, LineFolder::folded)
    }
}

impl<B: BodySink> Ended<B> {
    /// What is signed about it, and its octets with the fields of this host.
    pub fn signature(&self) -> Option<(Signature, u64)> {
        self.0.filter.signature().map(|signature| (signature, self.0.stored))
    }

    /// Its Message-ID, without the angle brackets.
    pub fn message_id(&self) -> Option<String> {
        self.0.filter.message_id()
    }

    /// How urgent it says that it is. Whether it may say so is another question.
    pub fn priority(&self) -> Option<Priority> {
        self.0.filter.priority()
    }

    /// Refuses it for a reason of its own; the first one stands.
    pub fn refuse(&mut self, reply: Reply) {
        self.0.refuse(reply);
    }

    /// The content that has ended becomes the message's body.
    ///
    /// # Errors
    /// The refusal.
    pub async fn finish(self) -> Result<Finished, Reply> {
        let content = self.0;
        if let Some(refusal) = content.refusal() {
            return Err(refusal);
        }
        let oddities = [(content.bare_newlines > 0, Oddity::BareNewline), (content.folded() > 0, Oddity::LongLine)];
        let oddities = oddities.into_iter().filter_map(|(met, oddity)| met.then_some(oddity)).chain(content.filter.added().iter().copied());
        let oddities = oddities.collect();
        let Some(sink) = content.sink else { return Err(reply::STORAGE_UNAVAILABLE) };
        match sink.finish().await {
            Ok(body) => Ok(Finished { octets: content.octets, body, oddities }),
            Err(error) => {
                warn!(%error, "a message body could not be stored");
                Err(storage_reply(&error))
            }
        }
    }
}

/// Storage trouble is temporary for the client: it keeps the message and tries again.
pub(super) fn storage_reply(error: &SpoolError) -> Reply {
    match error {
        SpoolError::Full(_) => reply::STORAGE_FULL,
        SpoolError::Closed => reply::SHUTTING_DOWN,
        SpoolError::Unavailable(_) | SpoolError::LeaseLost(_) => reply::STORAGE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use postrider_providers::contract::MessageId;
    use proptest::prelude::*;

    use super::*;
    use crate::config::OddCommands;
    use crate::spool::Spool as _;
    use crate::spool::memory::MemorySpool;

    fn tolerance(long_lines: LongLines, missing_fields: config::MissingFields, bare_newline: BareNewline) -> Tolerance {
        Tolerance { bare_newline, long_lines, commands: OddCommands::Accept, missing_fields }
    }

    /// What becomes of content that arrives in pieces: what is stored and what was odd, or the refusal.
    fn passed(input: &[u8], size: usize, tolerance: Tolerance, bare: u64) -> Result<(String, Vec<Oddity>), Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let missing = || MissingFields { date: "D".to_owned(), message_id: "<i@h>".to_owned() };
            let mut content = Content::new(MemorySpool::new().body(MessageId::generate()), tolerance, 5000, missing);
            for piece in input.chunks(size) {
                content.take(BytesMut::from(piece), bare).await;
            }
            let finished = content.end().await.finish().await?;
            let body = finished.body.bytes().await.unwrap();
            Ok((String::from_utf8(body.to_vec()).unwrap(), finished.oddities))
        })
    }

    #[test]
    fn each_oddity_is_mended_kept_or_refused_as_is_set() {
        use config::MissingFields::{Add, Keep};
        let long = format!("Subject: s\r\n\r\n{}\r\n", "a".repeat(1200));
        let folded = format!("Subject: s\r\n\r\n{}\r\n {}\r\n", "a".repeat(998), "a".repeat(202));
        let normal = BareNewline::Normalize;
        for size in [1, 100, 5000] {
            let pass = |tolerance| passed(long.as_bytes(), size, tolerance, 0);
            assert_eq!(pass(tolerance(LongLines::Keep, Keep, normal)), Ok((long.clone(), vec![])));
            assert_eq!(pass(tolerance(LongLines::Fold, Keep, normal)), Ok((folded.clone(), vec![Oddity::LongLine])));
            assert_eq!(pass(tolerance(LongLines::Reject, Keep, normal)), Err(reply::LONG_LINE));
            let completed = folded.replacen("s\r\n", "s\r\nDate: D\r\nMessage-ID: <i@h>\r\n", 1);
            let oddities = vec![Oddity::LongLine, Oddity::MissingDate, Oddity::MissingMessageId];
            assert_eq!(pass(tolerance(LongLines::Fold, Add, normal)), Ok((completed, oddities)));
            assert_eq!(passed(b"a\r\n", size, tolerance(LongLines::Keep, Keep, BareNewline::Reject), 1), Err(reply::BARE_NEWLINE));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_becomes_of_content_does_not_depend_on_how_it_is_cut(
            parts in proptest::collection::vec((prop_oneof![Just("a"), Just(" "), Just("X: y\r\n"), Just("\r\n"), Just("Received: x\r\n"), Just("Bcc: "), Just(":")], 0usize..1100), 0..6),
            size in 1usize..3000,
            choice in 0usize..12,
        ) {
            let input: String = parts.iter().map(|(text, count)| text.repeat(*count)).collect();
            let long_lines = [LongLines::Fold, LongLines::Keep, LongLines::Reject][choice % 3];
            let missing = [config::MissingFields::Add, config::MissingFields::Keep][choice / 3 % 2];
            let tolerance = tolerance(long_lines, missing, [BareNewline::Normalize, BareNewline::Reject][choice / 6]);
            let whole = passed(input.as_bytes(), input.len().max(1), tolerance, 1);
            prop_assert_eq!(passed(input.as_bytes(), size, tolerance, 1), whole);
        }
    }
}
