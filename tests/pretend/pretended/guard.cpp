// What torch asks of a CUDA backend before it queues work there, answered for a device on which
// every piece of work is done as soon as it is asked for. Autograd then runs its own thread for it.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

namespace {

const Device only_device(DeviceType::CUDA, 0);
const Stream only_stream(Stream::DEFAULT, only_device);

struct PretendedGuard final : c10::impl::DeviceGuardImplInterface {
  // Which device is current: always the only one.
  DeviceType type() const override { return DeviceType::CUDA; }
  Device getDevice() const override { return only_device; }
  Device exchangeDevice(Device) const override { return only_device; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  DeviceIndex deviceCount() const noexcept override { return 1; }

  // Which stream is current: likewise.
  Stream getStream(Device) const override { return only_stream; }
  Stream getDefaultStream(Device) const override { return only_stream; }
  Stream getNewStream(Device, int) const override { return only_stream; }
  Stream exchangeStream(Stream) const override { return only_stream; }

  // Waiting: nothing is ever under way. An event only must not be null.
  bool queryStream(const Stream&) const override { return true; }
  bool queryEvent(void*) const override { return true; }
  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    static int recorded;
    *event = &recorded;
  }
  void block(void*, const Stream&) const override {}
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};

} // namespace

namespace at {

// torch looks for hooks of this name.
// torch looks for hooks by this name.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

} // namespace at

C10_REGISTER_GUARD_IMPL(CUDA, PretendedGuard)
