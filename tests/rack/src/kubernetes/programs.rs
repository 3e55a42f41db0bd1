//! The folder of programs that the harness starts.

use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that `tests/rack/kubernetes/install` prints.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

impl Programs {
    /// The folder that `RACKMEDIC_KUBERNETES` names; `None` when it names none.
    ///
    /// # Errors
    /// It names a folder without these programs: whoever sets it wants the tests to run.
    pub fn named() -> anyhow::Result<Option<Programs>> {
        let Some(folder) = std::env::var_os("RACKMEDIC_KUBERNETES") else { return Ok(None) };
        let folder = PathBuf::from(folder);
        for program in ["etcd", "kube-apiserver", "kube-controller-manager", "kubelet", "kubeadm", "containerd", "runc"]
        {
            if !folder.join(program).is_file() {
                bail!(
                    "RACKMEDIC_KUBERNETES names {}, where there is no {program}: run tests/rack/kubernetes/install and name \
                     the folder that it prints",
                    folder.display()
                );
            }
        }
        Ok(Some(Programs(folder)))
    }

    /// One program.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }

    /// A command of one program, with the others on its path.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path(program));
        command.env("PATH", self.search_path());
        command
    }

    /// `PATH` with these programs first.
    #[must_use]
    pub fn search_path(&self) -> String {
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.display())
    }

    /// The version of Kubernetes, such as `v1.36.3`.
    ///
    /// # Errors
    /// `kubeadm` does not say.
    pub fn kubernetes_version(&self) -> anyhow::Result<String> {
        let output = self.command("kubeadm").args(["version", "-o", "short"]).output().context("kubeadm")?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }
}
