//! Problems found in a config file, and how they are drawn: file, line, caret, what to do.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::mask::Masked;

/// One thing that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Whether the config can be used in spite of it.
    pub(super) is_warning: bool,
    /// What was seen, in one line.
    pub(super) title: String,
    /// The place, and what was expected there.
    at: Option<(Range<usize>, String)>,
    /// Other places that belong to it.
    also: Vec<(Range<usize>, String)>,
    /// Facts that help.
    notes: Vec<String>,
    /// What to do.
    help: Option<String>,
}

impl Problem {
    /// Something that keeps the config from being used.
    pub(super) fn error(title: impl Into<String>) -> Self {
        Self { is_warning: false, title: title.into(), at: None, also: Vec::new(), notes: Vec::new(), help: None }
    }

    /// Something that works, but is probably not what was meant.
    pub(super) fn warning(title: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::error(title) }
    }

    /// Where, and what was expected there.
    pub(super) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.at = Some((span, label.into()));
        self
    }

    /// Another place that belongs to it.
    pub(super) fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    /// A fact that helps.
    pub(super) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// What to do.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The order of the file; what has no place comes first.
    pub(super) fn position(&self) -> usize {
        self.at.as_ref().map_or(0, |(span, _)| span.start)
    }
}

/// A config file's path and its text without secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    path: String,
    text: Masked,
}

impl Source {
    /// Takes `text` over with its secrets hidden, those of the keys at `suspects` included.
    pub(super) fn new(path: &Path, text: &str, suspects: &[Range<usize>]) -> Arc<Self> {
        Arc::new(Self { path: path.display().to_string(), text: Masked::new(text, suspects) })
    }

    fn draw(&self, problem: &Problem, color: bool) -> String {
        let level = if problem.is_warning { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(problem.title.as_str());
        let mut group = match &problem.at {
            Some((span, label)) => {
                let primary = AnnotationKind::Primary.span(self.text.range(span)).label(label.as_str());
                let context = problem.also.iter().map(|(span, label)| {
                    let kind = AnnotationKind::Context;
                    kind.span(self.text.range(span)).label(label.as_str())
                });
                title.element(Snippet::source(self.text.text()).path(self.path.as_str()).annotation(primary).annotations(context))
            }
            // Of a file that could not be read, the title says all.
            None if self.path.is_empty() => Group::with_title(title),
            None => Group::with_title(title).element(Origin::path(self.path.as_str())),
        };
        for note in &problem.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

/// Everything that is wrong with a config, in the order of the file. Displayed as plain text.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    source: Arc<Source>,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn new(source: Arc<Source>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::position);
        Self { source, problems }
    }

    /// How many errors there are, without warnings.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.iter().filter(|problem| !problem.is_warning).count()
    }

    /// Draws all of them; with `color` for a terminal that shows it.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let drawn: Vec<String> = self.problems.iter().map(|problem| self.source.draw(problem, color)).collect();
        drawn.join("\n\n")
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that works, but is probably not what was meant. Displayed as plain text.
#[derive(Debug, Clone)]
pub struct Warning {
    source: Arc<Source>,
    problem: Problem,
}

impl Warning {
    pub(super) fn new(source: Arc<Source>, problem: Problem) -> Self {
        Self { source, problem }
    }

    /// What it is, in one line, for the log.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.problem.title
    }

    /// Draws it; with `color` for a terminal that shows it.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        self.source.draw(&self.problem, color)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
