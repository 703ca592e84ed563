// powerd's services from its .proto files, nothing else.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const FILES = ["controller_service", "session_service", "site_service"];

export function connect(address, protos) {
  const definition = loader.loadSync(
    FILES.map((name) => `powerd/v1/${name}.proto`),
    { includeDirs: [protos], keepCase: true, longs: String, defaults: true, oneofs: true },
  );
  const { v1 } = grpc.loadPackageDefinition(definition).powerd;
  const credentials = grpc.credentials.createInsecure();
  const clients = ["ControllerService", "SessionService", "SiteService"].map((name) => new v1[name](address, credentials));
  return Object.assign(Object.fromEntries(["controller", "session", "site"].map((name, i) => [name, clients[i]])), {
    close: () => clients.forEach((client) => client.close()),
  });
}

// One unary call as a promise, given up after 10 s.
export const call = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, { deadline: Date.now() + 10_000 }, (fault, answer) => (fault ? reject(fault) : resolve(answer))),
  );

export const sleep = (s) => new Promise((resolve) => setTimeout(resolve, s * 1000));
