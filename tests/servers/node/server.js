// A plain HTTP server: node server.js PORT GENERATION
'use strict';

const http = require('node:http');

const [port, generation] = process.argv.slice(2);
const line = `${generation}\n`;
const stream = Buffer.alloc(4 * 1024 * 1024, line);

const server = http.createServer((request, response) => {
  switch (request.url) {
    case '/generation':
      response.end(line);
      break;
    case '/stream':
      response.end(stream);
      break;
    case '/upload':
      request.resume();
      request.on('end', () => response.end(line));
      break;
    default:
      response.writeHead(404);
      response.end();
  }
});

server.listen(Number(port));
