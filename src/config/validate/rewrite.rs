//! `rewrite` of a provider or a route: addresses that are some, and something to do.

use std::sync::Arc;

use postrider_providers::contract::Address;
use postrider_providers::settings;

use super::Checker;
use crate::config::document::Step;
use crate::config::problem::Problem;
use crate::config::settings::{Rewrite, SenderPattern};

impl Checker<'_, '_> {
    /// What is meant by the table at `path`; `None` if it has an error.
    pub(super) fn rewrite(&mut self, path: &[Step], written: &settings::Rewrite) -> Option<Arc<Rewrite>> {
        if written.from.is_none() && written.envelope.is_none() {
            // What was meant has a wrong name or a wrong type, and that is reported already.
            if self.document.keys(path).iter().any(|key| *key != "except") {
                return None;
            }
            let span = self.value(path);
            self.push(
                Problem::error("this `rewrite` changes nothing")
                    .at(span, "expected `from`, `envelope`, or both")
                    .help("write the address in whose name mail is handed over, as in rewrite = { from = \"noreply@x.example\" }"),
            );
            return None;
        }
        let (from, envelope) =
            (self.identity(path, "from", written.from.as_ref()), self.identity(path, "envelope", written.envelope.as_ref()));
        let mut except = Vec::new();
        for (position, text) in written.except.iter().enumerate() {
            let help = match text.parse::<SenderPattern>() {
                Ok(SenderPattern::Null) => "remove it: the null reverse-path always stays".to_owned(),
                Ok(pattern) => {
                    except.push(pattern);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            let span = self.value(&[path, &["except".into(), position.into()]].concat());
            self.push(
                Problem::error(format!("\"{text}\" is no sender that could be excepted"))
                    .at(span, "expected \"a@x.example\", \"@x.example\" or \"@*.x.example\"")
                    .help(help),
            );
        }
        let is_sound = except.len() == written.except.len();
        Some(Arc::new(Rewrite { from: from?, envelope: envelope?, except })).filter(|_| is_sound)
    }

    /// An address that mail is to come from; `None` if it is wrong.
    fn identity(&mut self, path: &[Step], key: &str, written: Option<&String>) -> Option<Option<Address>> {
        let Some(text) = written else { return Some(None) };
        let wrong = match Address::parse(text) {
            // Mail to whom SMTPUTF8 is foreign would need it then.
            Ok(address) if !address.is_ascii() => "write the domain as `xn--…`, and the rest in ASCII".to_owned(),
            Ok(address) => return Some(Some(address)),
            Err(error) => error.to_string(),
        };
        let span = self.value(&[path, &[key.into()]].concat());
        self.push(Problem::error(format!("\"{text}\" is no address to send from")).at(span, "expected an address").help(wrong));
        None
    }
}
