//! Templates of files of the first boot: Jinja without loaders, with a limit of steps, where a value that is missing is an
//! error and every value is quoted for the kind of file that it stands in. Nothing in a template can switch the quoting off.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::{Deserialize, Serialize};

/// Longest template.
pub const TEMPLATE_MAX: usize = 256 << 10;
/// Longest file.
const FILE_MAX: usize = 1 << 20;
/// Most steps of one rendering.
const FUEL: u64 = 100_000;

/// How values are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quoting {
    /// As a double-quoted scalar of YAML, which JSON's is too. For YAML, JSON and TOML.
    Yaml,
    /// As one word of a POSIX shell.
    Shell,
    /// Not at all: a value with any character but `A-Z a-z 0-9 . _ : / @ % + = , -` is an error.
    Word,
}

/// Why a file cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the template of {path}: {why}; no file was made, correct the template or its options")]
pub struct TemplateError {
    path: String,
    why: String,
}

/// A file of the first boot, before its values are known.
#[derive(Debug, Clone)]
pub struct Template {
    path: String,
    mode: u32,
    quoting: Quoting,
    text: String,
}

impl Template {
    /// Takes a template, if its syntax and its place are in order.
    ///
    /// # Errors
    /// They are not.
    pub fn new(path: &str, mode: u32, quoting: Quoting, text: String) -> Result<Template, TemplateError> {
        let template = Template { path: path.to_owned(), mode, quoting, text };
        let odd = |why: String| TemplateError { path: path.to_owned(), why };
        let parts = path.strip_prefix('/').ok_or_else(|| odd("its path does not begin with /".to_owned()))?;
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) || path.chars().any(char::is_control) {
            return Err(odd("its path has an empty part, . or ..".to_owned()));
        }
        if template.text.len() > TEMPLATE_MAX {
            return Err(odd(format!("it is longer than {TEMPLATE_MAX} bytes")));
        }
        let environment = template.environment().map_err(|e| odd(e.to_string()))?;
        environment.template_from_str(&template.text).map_err(|e| odd(e.to_string()))?;
        Ok(template)
    }

    /// Where the file is written.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its permissions.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// The file's content.
    ///
    /// # Errors
    /// A value is missing or cannot be written here. The error names no value: it may be a secret.
    pub fn render(&self, values: &impl Serialize) -> Result<String, TemplateError> {
        let odd = |why: String| TemplateError { path: self.path.clone(), why };
        let environment = self.environment().map_err(|e| odd(e.to_string()))?;
        let template = environment.template_from_str(&self.text).map_err(|e| odd(e.to_string()))?;
        let text = template.render(Value::from(minijinja::value::Serde(values))).map_err(|e| odd(e.to_string()))?;
        if text.len() > FILE_MAX {
            return Err(odd(format!("the file would be longer than {FILE_MAX} bytes")));
        }
        Ok(text)
    }

    fn environment(&self) -> Result<Environment<'_>, Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(50);
        // Whole lines of statements leave nothing behind.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        let quoting = self.quoting;
        environment.set_formatter(move |out, _, value| {
            let text = quote(quoting, value).map_err(|why| Error::new(ErrorKind::BadEscape, why))?;
            Ok(out.write_str(&text)?)
        });
        Ok(environment)
    }
}

fn quote(quoting: Quoting, value: &Value) -> Result<String, &'static str> {
    use minijinja::value::ValueKind;
    let text = match value.kind() {
        // Marked "safe" or not, it is quoted.
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        ValueKind::Bool => return Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => return Ok(value.to_string()),
        _ => {
            return Err(
                "only texts, numbers, true and false can be written; name a part of this value, or loop over it",
            );
        }
    };
    match quoting {
        Quoting::Yaml => {
            // What YAML takes for a line break or refuses, and JSON leaves as it is.
            let odd = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
            if text.chars().any(odd) {
                return Err("a value has a control character");
            }
            serde_json::to_string(&text).map_err(|_| "a value cannot be quoted")
        }
        Quoting::Shell => {
            if text.chars().any(char::is_control) {
                return Err("a value has a control character");
            }
            Ok(format!("'{}'", text.replace('\'', r"'\''")))
        }
        Quoting::Word => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/@%+=,-".contains(&b);
            if text.is_empty() || !text.bytes().all(plain) {
                return Err("a value is empty or has a character that would have to be quoted");
            }
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn render(quoting: Quoting, text: &str, value: &str) -> Result<String, TemplateError> {
        Template::new("/x", 0o600, quoting, text.to_owned())?.render(&serde_json::json!({ "value": value }))
    }

    #[test]
    fn no_template_switches_the_quoting_off() {
        for text in ["{{ value|safe }}", "{% autoescape false %}{{ value }}{% endautoescape %}"] {
            match render(Quoting::Shell, text, "a; reboot") {
                Ok(made) => assert_eq!(made, "'a; reboot'", "{text}"),
                Err(error) => assert!(!error.to_string().contains("reboot"), "{error}"),
            }
        }
    }

    #[test]
    fn what_is_missing_or_endless_or_misplaced_is_an_error_that_shows_no_value() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ value }}{% endfor %}{% endfor %}";
        for (quoting, text) in [
            (Quoting::Yaml, "{{ nothing }}"),
            (Quoting::Yaml, loops),
            (Quoting::Yaml, "{% include 'other' %}"),
            (Quoting::Word, "{{ value }}"),
        ] {
            let error = render(quoting, text, "se cret").unwrap_err().to_string();
            assert!(!error.contains("se cret") && error.contains("/x"), "{error}");
        }
        for path in ["etc/x", "/etc/../x", "/", "/a//b", "/a\n"] {
            assert!(Template::new(path, 0o600, Quoting::Word, String::new()).is_err(), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_what_was_given(value in "[^\\x00-\\x1f\\x7f-\\x9f]{0,40}") {
            let made = render(Quoting::Shell, "printf %s {{ value }}", &value).unwrap();
            let said = Command::new("sh").arg("-c").arg(made).output().unwrap();
            prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), value);
        }

        #[test]
        fn a_value_of_yaml_is_one_scalar_on_one_line(value in "\\PC{0,40}") {
            if let Ok(made) = render(Quoting::Yaml, "a: {{ value }}", &value) {
                let scalar = made.strip_prefix("a: ").unwrap();
                prop_assert_eq!(scalar.lines().count(), 1);
                prop_assert_eq!(serde_json::from_str::<String>(scalar).unwrap(), value);
            }
        }
    }
}
