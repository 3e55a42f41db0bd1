-- The BMCs that this appliance holds. Whoever else speaks to them by hand does so past its journal and its rules.
CREATE TABLE bmc (
    address TEXT    NOT NULL,
    port    INTEGER NOT NULL,
    host    INTEGER NOT NULL,
    -- What its Redfish taught while it was used, as JSON.
    facts   TEXT    NOT NULL DEFAULT '{}',
    PRIMARY KEY (address, port)
) STRICT;
