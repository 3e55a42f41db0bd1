//! Making what hosts boot, from the distribution's packages: boot sets (loaders, kernel, installer) and node images.

pub mod boot_set;
pub mod cpio;
pub mod efi_image;
pub mod modules;
pub mod node;
pub mod packages;
pub mod sbat;
