# A BMC of pyghmi's library on loopback, with a state that stays: power and boot device.
import sys

import pyghmi.ipmi.bmc as bmc


class Host(bmc.Bmc):
    power = 'off'
    device = 'default'

    def get_boot_device(self):
        return self.device

    def set_boot_device(self, bootdevice):
        self.device = bootdevice

    def get_power_state(self):
        return self.power

    def power_off(self):
        self.power = 'off'

    def power_on(self):
        self.power = 'on'


Host({'admin': 'secret'}, port=int(sys.argv[1]), address='127.0.0.1').listen()
