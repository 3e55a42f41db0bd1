//! Boot options over an open session.

use super::boot_options::{self, DiskSelector};
use super::client::Client;
use super::error::IpmiError;
use crate::boot::{BootDevice, BootMode, BootOverride};

impl Client {
    /// Sets what the next boot, and no other, boots from. Read it back: many BMCs accept and keep something else.
    ///
    /// # Errors
    /// The device is not expressible in IPMI, or as [`Client::run`].
    pub async fn set_boot_once(
        &mut self,
        device: &BootDevice,
        mode: BootMode,
        disk: DiskSelector,
    ) -> Result<(), IpmiError> {
        let flags = boot_options::set_boot_once(device, mode, disk)
            .map_err(|source| IpmiError::BootDevice { address: self.address, source })?;
        // First, so that the flags never stand under a countdown. A BMC without the parameter keeps them for 60 seconds
        // or for ever; either way the flags themselves are worth setting.
        match self.run(&boot_options::keep_flags_beyond_60_s(), "set boot options, parameter 3").await {
            Ok(_) | Err(IpmiError::Refused { .. }) => {}
            Err(why) => return Err(why),
        }
        self.run(&flags, "set boot options, parameter 5").await.map(drop)
    }

    /// What the BMC will have the machine boot from. `disk` as in [`Client::set_boot_once`].
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn boot_override(&mut self, disk: DiskSelector) -> Result<BootOverride, IpmiError> {
        let data = self.run(&boot_options::get_boot_flags(), "get boot options").await?;
        self.read(boot_options::read_boot_flags(&data, disk), "get boot options")
    }
}
