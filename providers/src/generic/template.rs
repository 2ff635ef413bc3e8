//! The body of a request as it is written in the config: a table in which placeholders become values.
//!
//! A text that is one placeholder becomes its value, with its type; in a longer text, a placeholder becomes
//! text. Values are put into JSON and never into its text, so whatever stands in a message, it cannot
//! change the request. A list with one element that speaks of the members of a list, as in
//! `[{ email = "{to.address}" }]`, is written once for each of them. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The envelope's sender; empty for the null reverse-path.
    Sender,
    /// The recipients of the call.
    Recipients,
    /// The message as a text.
    Raw,
    /// The message in base64.
    RawBase64,
    /// Postrider's id of the message.
    MessageId,
    /// The same for each attempt at the same handover.
    IdempotencyKey,
    /// The address of From.
    From,
    /// The name of From.
    FromName,
    /// Recipients that To shows.
    To,
    /// Recipients that Cc shows.
    Cc,
    /// Recipients that are not shown.
    Bcc,
    /// Reply-To.
    ReplyTo,
    /// Subject.
    Subject,
    /// The plain text.
    Text,
    /// The HTML.
    Html,
    /// The other header fields.
    Headers,
    /// The attachments.
    Attachments,
}

/// What of a list's member is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Address,
    Name,
    Value,
    MediaType,
    Content,
    ContentId,
    Disposition,
}

const SLOTS: [(&str, Slot); 17] = [
    ("sender", Slot::Sender),
    ("recipients", Slot::Recipients),
    ("raw", Slot::Raw),
    ("raw_base64", Slot::RawBase64),
    ("message_id", Slot::MessageId),
    ("idempotency_key", Slot::IdempotencyKey),
    ("from", Slot::From),
    ("from_name", Slot::FromName),
    ("to", Slot::To),
    ("cc", Slot::Cc),
    ("bcc", Slot::Bcc),
    ("reply_to", Slot::ReplyTo),
    ("subject", Slot::Subject),
    ("text", Slot::Text),
    ("html", Slot::Html),
    ("headers", Slot::Headers),
    ("attachments", Slot::Attachments),
];

const MEMBERS: [(&str, Slot, Member); 15] = [
    ("recipients.address", Slot::Recipients, Member::Address),
    ("to.address", Slot::To, Member::Address),
    ("to.name", Slot::To, Member::Name),
    ("cc.address", Slot::Cc, Member::Address),
    ("cc.name", Slot::Cc, Member::Name),
    ("bcc.address", Slot::Bcc, Member::Address),
    ("reply_to.address", Slot::ReplyTo, Member::Address),
    ("reply_to.name", Slot::ReplyTo, Member::Name),
    ("headers.name", Slot::Headers, Member::Name),
    ("headers.value", Slot::Headers, Member::Value),
    ("attachments.name", Slot::Attachments, Member::Name),
    ("attachments.type", Slot::Attachments, Member::MediaType),
    ("attachments.content", Slot::Attachments, Member::Content),
    ("attachments.content_id", Slot::Attachments, Member::ContentId),
    ("attachments.disposition", Slot::Attachments, Member::Disposition),
];

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    root: Node,
    /// What placeholders stand for, and whether they tell what matters of it.
    used: Vec<(Slot, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Literal(Value),
    /// One placeholder and nothing else.
    Slot(Slot),
    Text(Vec<Piece>),
    List(Vec<Node>),
    /// Written once for each member of the list.
    Each(Slot, Box<Node>),
    Table(Vec<(String, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Slot(Slot),
    Member(Slot, Member),
    Secret(String),
}

/// What placeholders become in one call.
#[derive(Debug, Clone, Default)]
pub struct Values<'a> {
    /// The envelope's sender.
    pub sender: &'a str,
    /// The recipients of the call.
    pub recipients: Vec<&'a str>,
    /// The message as a text, where it is asked for.
    pub raw: Option<&'a str>,
    /// The message in base64, where it is asked for.
    pub raw_base64: Option<&'a str>,
    /// Postrider's id.
    pub message_id: String,
    /// The key of this handover.
    pub idempotency_key: String,
    /// The message's fields, where they are asked for.
    pub fields: Option<&'a Fields>,
    /// Who is shown where.
    pub addressed: Option<&'a Addressed>,
    /// Secrets by name.
    pub secrets: Option<&'a BTreeMap<String, String>>,
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Address(&'a str),
    Mailbox(&'a Mailbox),
    Header(&'a str, &'a str),
    Attachment(&'a Attachment),
}

impl Slot {
    /// Whether it is read from the message by [`Fields`].
    #[must_use]
    pub fn is_field(self) -> bool {
        !matches!(self, Self::Sender | Self::Recipients | Self::Raw | Self::RawBase64 | Self::MessageId | Self::IdempotencyKey)
    }

    fn is_list(self) -> bool {
        MEMBERS.iter().any(|(_, list, _)| *list == self)
    }
}

impl Template {
    /// Reads a template, in which these secrets may be named.
    ///
    /// # Errors
    /// Says what is wrong with it, and what there is.
    pub fn read(template: &Value, secrets: &[&str]) -> Result<Self, String> {
        if !template.is_object() {
            return Err("expected a table, as in { to = \"{recipients}\", message = \"{raw_base64}\" }".to_owned());
        }
        let mut used = Vec::new();
        let root = node(template, None, secrets, &mut used)?;
        Ok(Self { root, used })
    }

    /// Whether a placeholder of it stands for `slot`, or for that of its members which matters: a list of
    /// names tells nobody's address.
    #[must_use]
    pub fn uses(&self, slot: Slot) -> bool {
        self.used.contains(&(slot, true))
    }

    /// Whether it needs the message's fields.
    #[must_use]
    pub fn uses_fields(&self) -> bool {
        self.used.iter().any(|(slot, _)| slot.is_field())
    }

    /// The body. What has no value is left out.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> Value {
        self.root.render(values, None).unwrap_or_default()
    }
}

fn node(value: &Value, of: Option<Slot>, secrets: &[&str], used: &mut Vec<(Slot, bool)>) -> Result<Node, String> {
    match value {
        Value::String(text) => {
            let pieces = pieces(text, secrets)?;
            for piece in &pieces {
                match piece {
                    Piece::Slot(slot) if slot.is_list() && pieces.len() > 1 => {
                        return Err(format!("{text:?}: a list has no place in a text; let the placeholder stand alone"));
                    }
                    Piece::Member(list, _) if of != Some(*list) => {
                        return Err(format!(
                            "{text:?} speaks of one member of a list, so it has its place in a list with one element, as in [{{ email = {text:?} }}]"
                        ));
                    }
                    Piece::Slot(slot) => used.push((*slot, true)),
                    Piece::Member(slot, member) => used.push((*slot, matches!(member, Member::Address | Member::Value | Member::Content))),
                    Piece::Literal(_) | Piece::Secret(_) => {}
                }
            }
            Ok(match pieces.as_slice() {
                [Piece::Slot(slot)] => Node::Slot(*slot),
                _ => Node::Text(pieces),
            })
        }
        Value::Array(list) => {
            if let ([only], None) = (list.as_slice(), of)
                && let Some(list) = list_of(only, secrets)?
            {
                return Ok(Node::Each(list, Box::new(node(only, Some(list), secrets, used)?)));
            }
            Ok(Node::List(list.iter().map(|one| node(one, of, secrets, used)).collect::<Result<_, _>>()?))
        }
        Value::Object(table) => {
            if table.keys().any(|key| key.starts_with("$__toml")) {
                return Err("JSON has no dates; write it as a text, in quotes".to_owned());
            }
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), node(value, of, secrets, used)?)));
            Ok(Node::Table(entries.collect::<Result<_, String>>()?))
        }
        other => Ok(Node::Literal(other.clone())),
    }
}

/// The list of whose members a value speaks, if it does.
fn list_of(value: &Value, secrets: &[&str]) -> Result<Option<Slot>, String> {
    let inner: Vec<&Value> = match value {
        Value::String(text) => {
            return Ok(pieces(text, secrets)?.iter().find_map(|piece| match piece {
                Piece::Member(list, _) => Some(*list),
                _ => None,
            }));
        }
        Value::Array(list) => list.iter().collect(),
        Value::Object(table) => table.values().collect(),
        _ => return Ok(None),
    };
    for value in inner {
        if let Some(list) = list_of(value, secrets)? {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

/// A text in pieces. `{{` and `}}` are braces.
fn pieces(text: &str, secrets: &[&str]) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else {
            let Some((name, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
                return Err(format!("{text:?}: a brace that is no placeholder; write {{{{ or }}}} for the character itself"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(placeholder(name, secrets)?);
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn placeholder(name: &str, secrets: &[&str]) -> Result<Piece, String> {
    if let Some((_, slot)) = SLOTS.iter().find(|(known, _)| *known == name) {
        return Ok(Piece::Slot(*slot));
    }
    if let Some((_, list, member)) = MEMBERS.iter().find(|(known, ..)| *known == name) {
        return Ok(Piece::Member(*list, *member));
    }
    if let Some(secret) = name.strip_prefix("secrets.").filter(|secret| secrets.contains(secret)) {
        return Ok(Piece::Secret(secret.to_owned()));
    }
    let known = SLOTS.iter().map(|(name, _)| *name).chain(MEMBERS.iter().map(|(name, ..)| *name));
    let known = known.map(|name| format!("{{{name}}}")).chain(secrets.iter().map(|name| format!("{{secrets.{name}}}")));
    Err(format!("{{{name}}} is no placeholder; there are {}", known.collect::<Vec<_>>().join(", ")))
}

impl Node {
    fn render(&self, values: &Values<'_>, item: Option<Item<'_>>) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Slot(slot) => values.whole(*slot),
            Self::Text(pieces) => match pieces.as_slice() {
                [piece] => values.text(piece, item).map(Value::String),
                pieces => Some(Value::String(pieces.iter().filter_map(|piece| values.text(piece, item)).collect())),
            },
            Self::List(list) => Some(list.iter().filter_map(|one| one.render(values, item)).collect()),
            Self::Each(list, one) => {
                let written: Vec<Value> = values.items(*list).into_iter().filter_map(|item| one.render(values, Some(item))).collect();
                (!written.is_empty()).then_some(Value::Array(written))
            }
            Self::Table(entries) => {
                let written = entries.iter().filter_map(|(key, node)| Some((key.clone(), node.render(values, item)?)));
                Some(Value::Object(written.collect()))
            }
        }
    }
}

impl<'a> Values<'a> {
    fn items(&self, list: Slot) -> Vec<Item<'a>> {
        let mailboxes = |list: Option<&'a Vec<Mailbox>>| list.into_iter().flatten().map(Item::Mailbox).collect();
        match list {
            Slot::Recipients => self.recipients.iter().copied().map(Item::Address).collect(),
            Slot::To => mailboxes(self.addressed.map(|addressed| &addressed.to)),
            Slot::Cc => mailboxes(self.addressed.map(|addressed| &addressed.cc)),
            Slot::Bcc => mailboxes(self.addressed.map(|addressed| &addressed.bcc)),
            Slot::ReplyTo => mailboxes(self.fields.map(|fields| &fields.reply_to)),
            Slot::Headers => {
                let headers = self.fields.into_iter().flat_map(|fields| &fields.headers);
                headers.map(|(name, value)| Item::Header(name, value)).collect()
            }
            Slot::Attachments => self.fields.into_iter().flat_map(|fields| &fields.attachments).map(Item::Attachment).collect(),
            _ => Vec::new(),
        }
    }

    /// The value of a placeholder that stands alone.
    fn whole(&self, slot: Slot) -> Option<Value> {
        let items = self.items(slot);
        match slot {
            Slot::Headers => {
                // An object has each name once.
                let mut object = Map::new();
                for item in items {
                    let (Some(name), Some(value)) = (item.member(Member::Name), item.member(Member::Value)) else { continue };
                    let known = object.get(&name).and_then(Value::as_str).map(|known| format!("{known}, {value}"));
                    object.insert(name, known.unwrap_or(value).into());
                }
                (!object.is_empty()).then_some(Value::Object(object))
            }
            Slot::Attachments => {
                let object = |item: &Item<'_>| {
                    let members = [
                        ("name", Member::Name),
                        ("type", Member::MediaType),
                        ("content", Member::Content),
                        ("content_id", Member::ContentId),
                    ];
                    let members = members.into_iter().filter_map(|(key, member)| Some((key.to_owned(), item.member(member)?.into())));
                    Value::Object(members.collect())
                };
                (!items.is_empty()).then(|| items.iter().map(object).collect())
            }
            list if list.is_list() => {
                (!items.is_empty()).then(|| items.iter().filter_map(|item| item.member(Member::Address)).map(Value::String).collect())
            }
            _ => self.text(&Piece::Slot(slot), None).map(Value::String),
        }
    }

    fn text(&self, piece: &Piece, item: Option<Item<'_>>) -> Option<String> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        match piece {
            Piece::Literal(text) => Some(text.clone()),
            Piece::Secret(name) => self.secrets?.get(name).cloned(),
            Piece::Member(_, member) => item?.member(*member),
            Piece::Slot(slot) => match slot {
                Slot::Sender => owned(Some(self.sender)),
                Slot::Raw => owned(self.raw),
                Slot::RawBase64 => owned(self.raw_base64),
                Slot::MessageId => owned(Some(&self.message_id)),
                Slot::IdempotencyKey => owned(Some(&self.idempotency_key)),
                Slot::From => owned(self.fields.map(|fields| fields.from.address.as_str())),
                Slot::FromName => self.fields?.from.name.clone(),
                Slot::Subject => owned(self.fields.map(|fields| fields.subject.as_str())),
                Slot::Text => self.fields?.text.clone(),
                Slot::Html => self.fields?.html.clone(),
                _ => None,
            },
        }
    }
}

impl Item<'_> {
    fn member(&self, member: Member) -> Option<String> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        match (self, member) {
            (Self::Address(address), Member::Address) => Some((*address).to_owned()),
            (Self::Mailbox(mailbox), Member::Address) => Some(mailbox.address.clone()),
            (Self::Mailbox(mailbox), Member::Name) => mailbox.name.clone(),
            (Self::Header(name, _), Member::Name) => Some((*name).to_owned()),
            (Self::Header(_, value), Member::Value) => Some((*value).to_owned()),
            (Self::Attachment(one), Member::Name) => Some(one.name.clone()),
            (Self::Attachment(one), Member::MediaType) => Some(one.media_type.clone()),
            (Self::Attachment(one), Member::Content) => Some(STANDARD.encode(&one.content)),
            (Self::Attachment(one), Member::ContentId) => one.content_id.clone(),
            (Self::Attachment(one), Member::Disposition) => Some(if one.content_id.is_some() { "inline" } else { "attachment" }.to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
