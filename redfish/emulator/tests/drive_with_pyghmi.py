# Drives a BMC through the library that OpenStack used for IPMI: power, boot device, sensors, event log.
import sys
import time

from pyghmi.ipmi import command

port, user, password = sys.argv[1:]
bmc = command.Command('127.0.0.1', user, password, port=int(port))


def until(state):
    for _ in range(60):
        if bmc.get_power()['powerstate'] == state:
            return
        time.sleep(0.2)
    raise SystemExit('never %s' % state)


until('on')
bmc.set_power('off')
until('off')
bmc.set_bootdev('network', uefiboot=True)
boot = bmc.get_bootdev()
assert boot['bootdev'] == 'network' and boot['uefimode'] and not boot['persistent'], boot
bmc.set_power('on')
until('on')
names = [reading.name for reading in bmc.get_sensor_data() if reading.value is not None]
assert 'CPU1 Temp' in names and 'FAN1' in names, names
assert list(bmc.get_event_log()), 'the log is empty'
bmc.ipmi_session.logout()
