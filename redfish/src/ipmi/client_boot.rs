//! Boot options over an open session.

use super::boot_options::{self, DiskSelector, Habit};
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

    /// What the BMC will have the machine boot from.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn boot_override(&mut self, habit: Habit) -> Result<BootOverride, IpmiError> {
        let data = self.run(&boot_options::get_boot_flags(), "get boot options").await?;
        self.read(boot_options::read_boot_flags(&data, habit), "get boot options")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{answering, done, refused};
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn the_countdown_goes_first_and_a_bmc_without_it_gets_the_flags_all_the_same() {
        for countdown_refused in [false, true] {
            let asked = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&asked);
            let mut client = answering(move |message| {
                noted.lock().unwrap().push(message.data.clone());
                if countdown_refused && message.data.first() == Some(&3) { refused(0x80) } else { done(&[]) }
            })
            .await;
            let disk = DiskSelector::Standard;
            client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, disk).await.unwrap();
            let http = client.set_boot_once(&BootDevice::Http { uri: None }, BootMode::Uefi, disk).await;
            assert!(matches!(http, Err(IpmiError::BootDevice { .. })), "{http:?}");
            assert_eq!(*asked.lock().unwrap(), [vec![3, 0x08], vec![5, 0xa0, 0x04, 0, 0, 0]]);
        }
    }

    #[tokio::test]
    async fn flags_that_are_refused_are_an_error() {
        let mut client =
            answering(|message| if message.data.first() == Some(&5) { refused(0xd4) } else { done(&[]) }).await;
        let refused = client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, DiskSelector::Standard).await;
        assert!(matches!(refused, Err(IpmiError::Refused { code: 0xd4, .. })), "{refused:?}");
    }
}
