# Drives a BMC through the library that Ironic uses: power, one-shot boot, virtual media.
import sys
import time

import sushy
import urllib3

urllib3.disable_warnings()
url, user, password = sys.argv[1:]
root = sushy.Sushy(url, username=user, password=password, verify=False)
system = root.get_system_collection().get_members()[0]


def until(state):
    for _ in range(60):
        system.refresh(force=True)
        if system.power_state == state:
            return
        time.sleep(0.2)
    raise SystemExit('never %s' % state)


until(sushy.POWER_STATE_ON)
system.reset_system(sushy.RESET_FORCE_OFF)
until(sushy.POWER_STATE_OFF)
system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE,
                               mode=sushy.BOOT_SOURCE_MODE_UEFI)
system.reset_system(sushy.RESET_ON)
until(sushy.POWER_STATE_ON)
holders = [system] + list(system.managers)
media = [m for h in holders for m in (h.virtual_media.get_members() if h.json.get('VirtualMedia') else [])]
media[0].insert_media('http://192.0.2.1/image.iso')
media[0].refresh(force=True)
assert media[0].inserted, media[0].json
media[0].eject_media()
media[0].refresh(force=True)
assert not media[0].inserted, media[0].json
root._conn._auth.close()
