//! What one distribution wants of a rejoin. The steps are the same for all; a driver says which secrets bear the old name,
//! whose group a credential is in, how it is written, and which files make a host join.

use super::names::NoName;
use super::template::{Quoting, Template, TemplateError};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How a credential is written into the files of the first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenForm {
    /// `id.secret`: the authority is pinned beside it.
    Plain,
    /// `K10<digest of the authority's file>::id.secret`, k3s' secure form.
    Secure,
}

/// One driver.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// What follows the Node's name in the names of secrets that bear it.
    pub name_secrets: Vec<String>,
    /// The group of whoever joins with the credential.
    pub token_group: String,
    /// How the credential is written.
    pub token_form: TokenForm,
    /// The distribution gives serving certificates itself: there is nothing to approve.
    pub serving_built_in: bool,
    /// The files of the first boot.
    pub files: Vec<Template>,
}

/// Why a driver is refused.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A name.
    #[error(transparent)]
    Name(#[from] NoName),
    /// A file of a template.
    #[error("{}: {why}; the driver cannot be used, correct its configuration", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The group.
    #[error("'{0}' is no group of bootstrap tokens: begin it with system:bootstrappers:")]
    Group(String),
}

/// Distributions that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// kubeadm 1.31 or newer. Run against the real thing in the tests.
    Kubeadm,
    /// k3s agents. Not run against the real thing.
    K3s,
    /// RKE2 agents. Not run against the real thing.
    Rke2,
    /// Talos workers. Not run against the real thing.
    Talos,
}

/// A driver as a configuration file writes it. What is not written is the preset's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriverFile {
    /// Which preset it begins with.
    pub preset: Option<Preset>,
    /// The group of the credential.
    pub token_group: Option<String>,
    /// How the credential is written.
    pub token_form: Option<TokenForm>,
    /// What follows the Node's name in the names of secrets that bear it.
    pub name_secrets: Option<Vec<String>>,
    /// Serving certificates are the distribution's own matter.
    pub serving_built_in: Option<bool>,
    /// Files of the first boot; with any, none of the preset's are written.
    #[serde(default, rename = "file")]
    pub files: Vec<TemplateFile>,
}

/// A file of the first boot as a configuration file writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateFile {
    /// Where it is written on the host.
    pub path: String,
    /// Its permissions, octal, such as `"0600"`.
    pub mode: String,
    /// How values are quoted in it.
    pub quoting: Quoting,
    /// The template's file, beside the configuration.
    pub template: PathBuf,
}

impl Preset {
    /// The driver of a distribution.
    ///
    /// # Errors
    /// A template of ours is not in order.
    pub fn driver(self) -> Result<Driver, TemplateError> {
        let yaml = |path: &str, text: &str| Template::new(path, 0o600, Quoting::Yaml, text.to_owned());
        let agent = |distribution: &str, config: &str| -> Result<Driver, TemplateError> {
            Ok(Driver {
                name: distribution.to_owned(),
                name_secrets: vec![format!(".node-password.{distribution}")],
                token_group: format!("system:bootstrappers:{distribution}:default-node-token"),
                token_form: TokenForm::Secure,
                serving_built_in: true,
                files: vec![yaml(config, include_str!("../../../templates/join/k3s.yaml"))?],
            })
        };
        match self {
            Preset::Kubeadm => Ok(Driver {
                name: "kubeadm".to_owned(),
                name_secrets: Vec::new(),
                token_group: "system:bootstrappers:kubeadm:default-node-token".to_owned(),
                token_form: TokenForm::Plain,
                serving_built_in: false,
                files: kubeadm_files()?,
            }),
            Preset::K3s => agent("k3s", "/etc/rancher/k3s/config.yaml.d/50-rackmedic.yaml"),
            Preset::Rke2 => agent("rke2", "/etc/rancher/rke2/config.yaml.d/50-rackmedic.yaml"),
            Preset::Talos => Ok(Driver {
                name: "talos".to_owned(),
                name_secrets: Vec::new(),
                token_group: "system:bootstrappers:nodes".to_owned(),
                token_form: TokenForm::Plain,
                serving_built_in: true,
                files: vec![yaml("/config.yaml", include_str!("../../../templates/join/talos.yaml"))?],
            }),
        }
    }
}

fn kubeadm_files() -> Result<Vec<Template>, TemplateError> {
    [
        ("/etc/rackmedic/join/kubeadm.yaml", 0o600, include_str!("../../../templates/join/kubeadm.yaml")),
        ("/etc/rackmedic/join/join.sh", 0o700, include_str!("../../../templates/join/kubeadm.sh")),
        ("/etc/systemd/system/rackmedic-join.service", 0o644, include_str!("../../../templates/join/kubeadm.service")),
        // A drop-in, since a file that enables a unit has to be a link, and links are not written.
        (
            "/etc/systemd/system/multi-user.target.d/rackmedic-join.conf",
            0o644,
            include_str!("../../../templates/join/wanted.conf"),
        ),
    ]
    .map(|(path, mode, text)| Template::new(path, mode, Quoting::Yaml, text.to_owned()))
    .into_iter()
    .collect()
}

impl DriverFile {
    /// The driver that it describes; templates are looked for beside `base`.
    ///
    /// # Errors
    /// A template cannot be read or understood, or the group is none.
    pub fn driver(self, base: &Path) -> Result<Driver, DriverError> {
        let mut driver = match self.preset {
            Some(preset) => preset.driver()?,
            None => Driver {
                name: "generic".to_owned(),
                name_secrets: Vec::new(),
                token_group: "system:bootstrappers:kubeadm:default-node-token".to_owned(),
                token_form: TokenForm::Plain,
                serving_built_in: false,
                files: Vec::new(),
            },
        };
        if let Some(group) = self.token_group {
            driver.token_group = group;
        }
        if !driver.token_group.starts_with("system:bootstrappers:") {
            return Err(DriverError::Group(driver.token_group));
        }
        driver.token_form = self.token_form.unwrap_or(driver.token_form);
        driver.name_secrets = self.name_secrets.unwrap_or(driver.name_secrets);
        driver.serving_built_in = self.serving_built_in.unwrap_or(driver.serving_built_in);
        if !self.files.is_empty() {
            driver.files = self.files.into_iter().map(|file| file.template(base)).collect::<Result<_, _>>()?;
        }
        Ok(driver)
    }
}

impl TemplateFile {
    fn template(self, base: &Path) -> Result<Template, DriverError> {
        let path = base.join(&self.template);
        let odd = |why: String| DriverError::File { path: path.clone(), why };
        let mode = u32::from_str_radix(&self.mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.ok_or_else(|| odd(format!("'{}' is no mode: write it octal, such as \"0600\"", self.mode)))?;
        let length = std::fs::metadata(&path).map_err(|e| odd(e.to_string()))?.len();
        if length > super::template::TEMPLATE_MAX as u64 {
            return Err(odd(format!("{length} bytes are too long for a template")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| odd(e.to_string()))?;
        Ok(Template::new(&self.path, mode, self.quoting, text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(preset: Preset) -> Vec<String> {
        preset.driver().unwrap().files.iter().map(|file| file.path().to_owned()).collect()
    }

    /// The paths for which a unit waits; with `|`, one of them is enough.
    fn conditions(unit: &str) -> Vec<&str> {
        let conditions = unit.lines().filter_map(|line| line.strip_prefix("ConditionPathExists="));
        conditions.map(|path| path.trim_start_matches('|')).collect()
    }

    #[test]
    fn the_units_of_a_node_wait_for_files_that_the_presets_write() {
        let agent = include_str!("../../../images/node/k3s-agent.service");
        let written = paths(Preset::K3s);
        assert!(written.iter().any(|path| conditions(agent).contains(&path.as_str())), "{written:?}");
        assert!(!agent.contains("ConditionPathExists=/"), "with two, each is one of several");
        // kubeadm's own unit waits for what is written with it; the kubelet's for what kubeadm writes.
        let join = conditions(include_str!("../../../templates/join/kubeadm.service"));
        let written = paths(Preset::Kubeadm);
        assert!(!join.is_empty() && join.iter().all(|path| written.iter().any(|file| file == path)), "{written:?}");
    }
}
