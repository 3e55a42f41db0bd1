//! Explanations: for every host, at any moment, what is known, what happens next and which rule blocks it.

use crate::rules::Rule;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A machine code, a sentence for people, and the rule that speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The rule that blocks or allows; `None` for plain progress.
    pub rule: Option<Rule>,
    /// A stable code in kebab case, for API and tests.
    pub code: Cow<'static, str>,
    /// One sentence in the words of the product: cause, and what would change it.
    pub sentence: Cow<'static, str>,
}

impl Explanation {
    /// An explanation of progress.
    #[must_use]
    pub fn note(code: &'static str, sentence: impl Into<Cow<'static, str>>) -> Explanation {
        Explanation { rule: None, code: Cow::Borrowed(code), sentence: sentence.into() }
    }

    /// A refusal by a rule.
    #[must_use]
    pub fn refusal(rule: u8, code: &'static str, sentence: impl Into<Cow<'static, str>>) -> Explanation {
        Explanation { rule: Some(Rule(rule)), code: Cow::Borrowed(code), sentence: sentence.into() }
    }
}
