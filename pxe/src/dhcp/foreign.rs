//! DHCP servers that are not ours.
