//! The appliance as a library: the server and the command line share it.
